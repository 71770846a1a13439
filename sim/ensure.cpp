#include "sim/ensure.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "sim/broken_invariant.hpp"

namespace trainyard::sim {
namespace {

thread_local int throwing = 0;  // how many ThrowBrokenInvariants live

}  // namespace

ThrowBrokenInvariants::ThrowBrokenInvariants() { ++throwing; }
ThrowBrokenInvariants::~ThrowBrokenInvariants() { --throwing; }

void fail_invariant(const char* rule, const char* file, int line) {
  if (throwing > 0)
    throw BrokenInvariant(std::string("not true that ") + rule + " (" + file + ":" + std::to_string(line) + ")");
  std::fprintf(stderr, "trainyard: internal error: not true that %s (%s:%d)\n", rule, file, line);
  std::abort();
}

}  // namespace trainyard::sim
