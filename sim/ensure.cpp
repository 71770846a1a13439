#include "sim/ensure.hpp"

#include <cstdio>
#include <cstdlib>

namespace trainyard::sim {

void fail_invariant(const char* rule, const char* file, int line) {
  std::fprintf(stderr, "trainyard: internal error: not true that %s (%s:%d)\n", rule, file, line);
  std::abort();
}

}  // namespace trainyard::sim
