#include "strategies/ddp_buckets.hpp"

namespace trainyard::strategies {

std::vector<sim::Bytes> ddp_buckets(std::span<const sim::Bytes> tensors, sim::Bytes first_limit, sim::Bytes cap) {
  std::vector<sim::Bytes> buckets;
  sim::Bytes open{};
  for (const sim::Bytes tensor : tensors) {
    open += tensor;
    if (open < (buckets.empty() ? first_limit : cap)) continue;
    buckets.push_back(open);
    open = {};
  }
  if (open.count > 0) buckets.push_back(open);
  return buckets;
}

}  // namespace trainyard::strategies
