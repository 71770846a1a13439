#include <numeric>
#include <string>

#include "strategies/checks.hpp"
#include "strategies/internal/maxtext.hpp"

namespace trainyard::strategies {
namespace {

std::string key_of(std::string_view name) { return "strategy." + std::string(name); }

class Resolver {
 public:
  Resolver(const MaxTextOptions& options, const topology::Cluster& cluster)
      : options_(options), slices_(slices_of(cluster)), ici_(options.ici), dcn_(options.dcn) {}

  MeshResolution resolve() {
    if (!slices_.even) {
      report("cluster.devices",
             "slices (nodes, where there are none) have different numbers of devices; MaxText's "
             "mesh needs as many in each");
      return std::move(result_);
    }
    take_common_names();
    ici_left_ = slices_.devices / product_of_given(ici_, ici_names, slices_.devices, "devices of a slice");
    dcn_left_ = slices_.count / product_of_given(dcn_, dcn_names, slices_.count, "slices");
    if (result_.problems.empty()) place_common_names();
    if (result_.problems.empty()) absorb(ici_, ici_names, ici_left_, slices_.devices, "devices of a slice");
    if (result_.problems.empty()) absorb(dcn_, dcn_names, dcn_left_, slices_.count, "slices");
    if (result_.problems.empty()) result_.sizes = MeshSizes{.ici = ici_, .dcn = dcn_};
    return std::move(result_);
  }

 private:
  struct Asked {
    std::string_view name;
    MeshAxis axis{};
    std::int64_t size = 1;
  };

  void report(std::string key, std::string message) {
    result_.problems.push_back({.key = std::move(key), .message = std::move(message)});
  }

  // An axis has a size under either kind of name, or under both the same.
  void take(std::string_view name, MeshAxis axis, const std::optional<std::int64_t>& size) {
    if (!size) return;
    std::int64_t& ici = ici_.at(index_of(axis));
    std::int64_t& dcn = dcn_.at(index_of(axis));
    const bool given = ici != MaxTextOptions{}.ici.at(index_of(axis)) || dcn != 1;
    if (!given) {
      ici = 1;
      asked_.push_back({name, axis, *size});
    } else if (ici == the_rest || dcn == the_rest || ici * dcn != *size) {
      report(key_of(name), std::to_string(*size) + " contradicts " + std::string(ici_names.at(index_of(axis))) + " " +
                               std::to_string(ici) + " x " + std::string(dcn_names.at(index_of(axis))) + " " +
                               std::to_string(dcn) + "; give one of them");
    }
  }

  // In the order in which they need the faster network.
  void take_common_names() {
    take("tensor", MeshAxis::tensor, options_.tensor);
    take("context", MeshAxis::context, options_.context);
    take("expert", MeshAxis::expert, options_.expert);
    take("pipeline", MeshAxis::pipeline, options_.pipeline);
    take("shard", MeshAxis::fsdp, options_.shard);
    // Whoever says how many hold one copy leaves the rest to copies.
    std::int64_t& copies = ici_.at(index_of(MeshAxis::data));
    if (options_.shard && copies == 1) copies = the_rest;
  }

  // Axis by axis, so that the message names the first that does not fit.
  std::int64_t product_of_given(const PerAxis<std::int64_t>& sizes, const PerAxis<std::string_view>& names,
                                std::int64_t whole, const std::string& what) {
    std::int64_t product = 1;
    for (std::size_t i = mesh_axes; i-- > 0;) {
      if (sizes.at(i) == the_rest) continue;
      if (sizes.at(i) < 1) {
        report(key_of(names.at(i)), "expected a number of ranks, or -1 for what the other axes leave");
        return product;
      }
      const std::int64_t left = whole / product;
      if (left % sizes.at(i) != 0) {
        require_divides(result_.problems, key_of(names.at(i)), sizes.at(i), left,
                        "the " + what + (product > 1 ? " that the other axes leave" : ""));
        return product;
      }
      product *= sizes.at(i);
    }
    return product;
  }

  void place_common_names() {
    for (const Asked& asked : asked_) {
      const std::int64_t inside = std::gcd(asked.size, ici_left_);
      const std::int64_t across = asked.size / inside;
      if (dcn_left_ % across != 0) {
        require_divides(result_.problems, key_of(asked.name), asked.size, ici_left_ * dcn_left_,
                        "the devices that the other axes leave");
        if (result_.problems.empty())
          report(key_of(asked.name), std::to_string(asked.size) + " does not fit " + std::to_string(dcn_left_) +
                                         " slices with " + std::to_string(ici_left_) +
                                         " devices left in each; the nearest that does is " +
                                         std::to_string(ici_left_ * nearest_divisor(dcn_left_, across)));
        return;
      }
      ici_.at(index_of(asked.axis)) = inside;
      dcn_.at(index_of(asked.axis)) = across;
      ici_left_ /= inside;
      dcn_left_ /= across;
    }
  }

  void absorb(PerAxis<std::int64_t>& sizes, const PerAxis<std::string_view>& names, std::int64_t left,
              std::int64_t whole, const std::string& what) {
    std::optional<std::size_t> absorbing;
    for (std::size_t i = 0; i < mesh_axes; ++i) {
      if (sizes.at(i) != the_rest) continue;
      if (absorbing)
        return report(key_of(names.at(i)), "only one axis can take what the others leave (-1), and " +
                                               std::string(names.at(*absorbing)) + " does; give it a size");
      absorbing = i;
    }
    if (absorbing) {
      sizes.at(*absorbing) = left;
    } else if (left > 1) {
      const std::size_t usual = index_of(&names == &ici_names ? MeshAxis::fsdp : MeshAxis::data);
      report(key_of(names.at(usual)), "the axes multiply to " + std::to_string(whole / left) + ", but must to the " +
                                          std::to_string(whole) + " " + what + "; the nearest choice here is " +
                                          std::to_string(sizes.at(usual) * left) + ", or -1 for what is left");
    }
  }

  const MaxTextOptions& options_;
  Slices slices_;
  PerAxis<std::int64_t> ici_;
  PerAxis<std::int64_t> dcn_;
  std::vector<Asked> asked_;
  std::int64_t ici_left_ = 1;
  std::int64_t dcn_left_ = 1;
  MeshResolution result_;
};

}  // namespace

MeshResolution resolve_mesh(const MaxTextOptions& options, const topology::Cluster& cluster) {
  return Resolver(options, cluster).resolve();
}

}  // namespace trainyard::strategies
