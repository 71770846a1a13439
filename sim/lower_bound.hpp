// How long the step of a plan takes at least, without simulating it: for searches that need not look at what cannot
// win.
//
// The executor's times are sums and maxima. Whatever waits for less, for fewer others and for shorter transfers is
// never later, and neither is anything behind it; so a step that lacks some of its dependencies takes no longer than
// the real one. Three such steps are looked at, and the longest is the bound:
//  - Every program alone: its compute stream runs one block after the other, each as long as the longest chain of
//    kernels and communications from the moment when the compute stream enters the block until it leaves it. What does
//    not wait for that moment may have been done before, and everything takes what it takes in a network without
//    others.
//  - Every stream alone: what is issued on it, one after the other.
//  - A pipeline without anything else: one rank of each stage, with what it sends to and receives from other stages,
//  and
//    between these the chains above as single kernels. It is executed, which takes a hundredth of the step itself.
#pragma once

#include <array>
#include <cstdint>

#include "sim/plan.hpp"

namespace trainyard::sim {

enum class StepPart : std::uint8_t {
  all,
  // The forward and backward passes of micro-batches, without moving parameters, gradients and what is kept of them.
  passes
};

// No steady step is shorter. Where links are shared the executor takes steps for steady that differ by a millionth: the
// bound is lower by two.
Duration least_step_time(const Plan& plan, StepPart part = StepPart::all);

// Seconds that the compute stream of an average rank spends in kernels of each class, on the fastest of its devices.
std::array<double, kernel_classes> mean_kernel_time(const Plan& plan, StepPart part = StepPart::all);

// What a program keeps for backward passes, at most at once.
Bytes activation_peak(const Plan& plan, const Program& program);

}  // namespace trainyard::sim
