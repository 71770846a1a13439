// Invariants that others may have broken: code from outside which builds plans.
#pragma once

#include <stdexcept>

namespace trainyard::sim {

class BrokenInvariant : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// While one of these lives, an invariant that its thread finds broken is thrown, for whoever called that code to name
// it, instead of ending the program.
class ThrowBrokenInvariants {
 public:
  ThrowBrokenInvariants();
  ~ThrowBrokenInvariants();
  ThrowBrokenInvariants(const ThrowBrokenInvariants&) = delete;
  ThrowBrokenInvariants& operator=(const ThrowBrokenInvariants&) = delete;
};

}  // namespace trainyard::sim
