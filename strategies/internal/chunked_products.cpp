#include "strategies/internal/chunked_products.hpp"

#include <cmath>
#include <string>

namespace trainyard::strategies {
namespace {

using sim::Kernel;

// Of a product in pieces over one in whole: between 0.9 and 0.97, an estimate.
constexpr double split_efficiency = 0.95;

// The pieces from `first` on, `count` of them; what is left when pieces have been rounded down goes to the last.
struct Pieces {
  std::int64_t all = 1;
  std::int64_t first = 0;
  std::int64_t count = 1;

  std::int64_t of(std::int64_t whole) const {
    const std::int64_t each = whole / all;
    return first + count < all ? each * count : whole - each * first;
  }
};

std::vector<Kernel> part_of(std::vector<Kernel> kernels, const Pieces& pieces) {
  for (Kernel& kernel : kernels) {
    const double slower = kernel.kind == sim::KernelClass::matmul ? 1 / split_efficiency : 1;
    kernel.name += " (" + std::to_string(pieces.count) + " of " + std::to_string(pieces.all) + " pieces)";
    kernel.duration = sim::Duration{
        static_cast<std::int64_t>(std::ceil(static_cast<double>(kernel.duration.count()) * slower *
                                            static_cast<double>(pieces.count) / static_cast<double>(pieces.all)))};
    kernel.flops = {pieces.of(kernel.flops.count)};
    kernel.model_flops = {pieces.of(kernel.model_flops.count)};
    kernel.bytes = {pieces.of(kernel.bytes.count)};
  }
  return kernels;
}

sim::CallId call_of(BlockWriter& block, const PiecewiseCollective& collective, const Pieces& pieces) {
  return block.call(collective.slot, collective.kind, sim::Bytes{pieces.of(collective.bytes.count)},
                    sim::Purpose::tensor);
}

}  // namespace

void write_gathered_product(BlockWriter& block, const PiecewiseCollective& gather, const std::vector<Kernel>& kernels) {
  const std::int64_t n = gather.pieces;
  const sim::StreamSet stream = sim::set_of(gather.stream);
  block.blocking(gather.stream, call_of(block, gather, {.all = n}));
  block.communicate(gather.stream, call_of(block, gather, {.all = n, .first = 1, .count = n - 1}));
  block.compute(part_of(kernels, {.all = n, .count = n - 1}));
  block.wait_for(stream);
  block.compute(part_of(kernels, {.all = n, .first = n - 1}));
}

void write_reduced_product(BlockWriter& block, const PiecewiseCollective& reduction,
                           const std::vector<Kernel>& kernels) {
  const std::int64_t n = reduction.pieces;
  block.compute(part_of(kernels, {.all = n}));
  block.communicate(reduction.stream, call_of(block, reduction, {.all = n, .count = n - 1}));
  block.compute(part_of(kernels, {.all = n, .first = 1, .count = n - 1}));
  block.communicate(reduction.stream, call_of(block, reduction, {.all = n, .first = n - 1}));
  block.wait_for(sim::set_of(reduction.stream));
}

}  // namespace trainyard::strategies
