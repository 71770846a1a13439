#include "strategies/internal/chunked_products.hpp"

#include <cmath>

namespace trainyard::strategies {
namespace {

using sim::Kernel;

// Of a product in pieces over one in whole: between 0.9 and 0.97, an estimate.
constexpr double split_efficiency = 0.95;

// What is left when the other pieces have been rounded down goes to the last.
std::int64_t piece_of(std::int64_t whole, std::int64_t pieces, std::int64_t index) {
  const std::int64_t each = whole / pieces;
  return index + 1 < pieces ? each : whole - each * (pieces - 1);
}

std::vector<Kernel> piece_of(std::vector<Kernel> kernels, std::int64_t pieces, std::int64_t index) {
  for (Kernel& kernel : kernels) {
    const double slower = kernel.kind == sim::KernelClass::matmul ? 1 / split_efficiency : 1;
    kernel.name += " (piece)";
    kernel.duration = sim::Duration{static_cast<std::int64_t>(
        std::ceil(static_cast<double>(kernel.duration.count()) * slower / static_cast<double>(pieces)))};
    kernel.flops = {piece_of(kernel.flops.count, pieces, index)};
    kernel.model_flops = {piece_of(kernel.model_flops.count, pieces, index)};
    kernel.bytes = {piece_of(kernel.bytes.count, pieces, index)};
  }
  return kernels;
}

sim::CallId call_of(BlockWriter& block, const PiecewiseCollective& collective, std::int64_t index) {
  return block.call(collective.slot, collective.kind,
                    sim::Bytes{piece_of(collective.bytes.count, collective.pieces, index)}, sim::Purpose::tensor);
}

}  // namespace

void write_gathered_product(BlockWriter& block, const PiecewiseCollective& gather, const std::vector<Kernel>& kernels) {
  block.communicate(gather.stream, call_of(block, gather, 0));
  for (std::int64_t i = 0; i < gather.pieces; ++i) {
    block.wait_for(sim::set_of(gather.stream));
    // What the next piece is made of was there with the first.
    if (i + 1 < gather.pieces) block.communicate(gather.stream, call_of(block, gather, i + 1), 0, {}, std::nullopt);
    block.compute(piece_of(kernels, gather.pieces, i));
  }
}

void write_reduced_product(BlockWriter& block, const PiecewiseCollective& reduction,
                           const std::vector<Kernel>& kernels) {
  for (std::int64_t i = 0; i < reduction.pieces; ++i) {
    block.compute(piece_of(kernels, reduction.pieces, i));
    block.communicate(reduction.stream, call_of(block, reduction, i));
  }
  block.wait_for(sim::set_of(reduction.stream));
}

}  // namespace trainyard::strategies
