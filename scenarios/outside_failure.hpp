// What went wrong outside Trainyard: exit status 4.
#pragma once

#include <stdexcept>

namespace trainyard::scenarios {

// A full disk, a missing program, a locked store, a Slurm that does not answer. what() is one sentence for the user.
class OutsideFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace trainyard::scenarios
