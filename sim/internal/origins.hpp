// What the compute stream's waiting is blamed on.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/executor.hpp"
#include "sim/internal/step_list.hpp"

namespace trainyard::sim {

constexpr std::uint32_t no_origin = 0xffffffff;

// Numbers for what may be waited for. Usually there is one for each call, which is all that a result needs, and kernels
// have none; with `per_operation` one for each operation of a block in each layer that the block is called for.
class Origins {
 public:
  Origins(const Plan& plan, bool per_operation);

  bool per_operation() const { return !first_.empty(); }
  // Of a call alone, and of an operation.
  static std::uint32_t of(const Step& step) {
    return step.kind == Step::Kind::communicate ? static_cast<std::uint32_t>(index_of(step.call)) : no_origin;
  }
  std::uint32_t of(const Step& step, ProgramId program, std::size_t block_call) const {
    return first_[index_of(program)][block_call] + step.first_op;
  }
  // Whether it is a communication.
  bool has_call(std::uint32_t origin) const { return origin != no_origin && (first_.empty() || called_[origin].is); }
  CallId call_of(std::uint32_t origin) const { return first_.empty() ? CallId{origin} : called_[origin].call; }

  // One for each number, without any time; empty unless per operation.
  const std::vector<OperationTime>& operations() const { return operations_; }

 private:
  struct Called {
    bool is = false;
    CallId call{};
  };
  std::vector<std::vector<std::uint32_t>> first_;  // of each block call of each program: the number of its first op
  std::vector<Called> called_;
  std::vector<OperationTime> operations_;
};

}  // namespace trainyard::sim
