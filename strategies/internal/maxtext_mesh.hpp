// The device mesh of MaxText: axes of parallelism, each with a part inside a slice (ICI; NVLink on GPUs) and one across
// slices (DCN). Sources: AI-Hypercomputer/maxtext src/maxtext/configs/base.yml (mesh_axes, logical_axis_rules) and
// maxtext_utils.py (create_device_mesh); jax-ml/jax jax/_src/mesh_utils.py (create_device_mesh,
// create_hybrid_device_mesh).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "sim/plan.hpp"
#include "strategies/groups.hpp"
#include "topology/cluster.hpp"

namespace trainyard::strategies {

// In MaxText's order, from the outermost to the innermost.
enum class MeshAxis : std::uint8_t {
  data,             // batch; parameters are copies
  pipeline,         // layers
  fsdp,             // batch; parameters are shards
  fsdp_transpose,   // the same, shards along the other dimension of matrices
  sequence,         // tokens, and heads for the time of the attention
  context,          // tokens
  tensor,           // features
  tensor_sequence,  // features of matrices, tokens between them
  expert            // experts; elsewhere as fsdp
};
constexpr std::size_t mesh_axes = 9;
template <class Value>
using PerAxis = std::array<Value, mesh_axes>;

constexpr std::array<MeshAxis, mesh_axes> all_mesh_axes{
    MeshAxis::data,           MeshAxis::pipeline,        MeshAxis::fsdp,
    MeshAxis::fsdp_transpose, MeshAxis::sequence,        MeshAxis::context,
    MeshAxis::tensor,         MeshAxis::tensor_sequence, MeshAxis::expert};
constexpr PerAxis<std::string_view> ici_names{
    "ici_data_parallelism",           "ici_pipeline_parallelism",        "ici_fsdp_parallelism",
    "ici_fsdp_transpose_parallelism", "ici_sequence_parallelism",        "ici_context_parallelism",
    "ici_tensor_parallelism",         "ici_tensor_sequence_parallelism", "ici_expert_parallelism"};
constexpr PerAxis<std::string_view> dcn_names{
    "dcn_data_parallelism",           "dcn_pipeline_parallelism",        "dcn_fsdp_parallelism",
    "dcn_fsdp_transpose_parallelism", "dcn_sequence_parallelism",        "dcn_context_parallelism",
    "dcn_tensor_parallelism",         "dcn_tensor_sequence_parallelism", "dcn_expert_parallelism"};
constexpr std::size_t index_of(MeshAxis axis) { return static_cast<std::size_t>(axis); }

struct MeshSizes {
  PerAxis<std::int64_t> ici{1, 1, 1, 1, 1, 1, 1, 1, 1};
  PerAxis<std::int64_t> dcn{1, 1, 1, 1, 1, 1, 1, 1, 1};

  std::int64_t of(MeshAxis axis) const { return ici.at(index_of(axis)) * dcn.at(index_of(axis)); }
  std::int64_t of(std::initializer_list<MeshAxis> axes) const;
  std::int64_t tensor() const { return of({MeshAxis::tensor, MeshAxis::tensor_sequence}); }
  std::int64_t pipeline() const { return of(MeshAxis::pipeline); }
  // Ranks that share a sequence.
  std::int64_t context() const { return of({MeshAxis::sequence, MeshAxis::context}); }
  std::int64_t expert() const { return of(MeshAxis::expert); }
  // Ranks with batches of their own (activation_batch).
  std::int64_t batches() const {
    return of({MeshAxis::data, MeshAxis::fsdp, MeshAxis::fsdp_transpose, MeshAxis::expert});
  }
  // Ranks that hold one copy of what is not an expert's (embed), and of the experts that a rank has (embed_moe).
  std::int64_t shards() const { return expert_shards() * expert(); }
  std::int64_t expert_shards() const {
    return of({MeshAxis::fsdp, MeshAxis::fsdp_transpose, MeshAxis::sequence, MeshAxis::context});
  }
};

// Slices: TPU chips on one torus, GPUs in one NVLink domain.
struct Slices {
  std::int64_t count = 1;
  std::int64_t devices = 1;  // of each
  bool even = true;          // as many in each
};
Slices slices_of(const topology::Cluster& cluster);

// Ranks as coordinates on the mesh. Inside a slice of TPUs an axis takes whole axes of the torus where their lengths
// multiply to its own, so that it is a ring or a torus of fewer dimensions: the innermost axis of the mesh first, and
// each as many axes of the torus as it can have. What is left is divided among parts of axes, neighbours together
// (jax's allow_split_physical_axes). Elsewhere the innermost axis of the mesh joins neighbouring devices.
class DeviceMesh {
 public:
  // The sizes multiply to the devices of a slice, and to the slices.
  DeviceMesh(const topology::Cluster& cluster, const MeshSizes& sizes);

  const RankGrid& grid() const { return grid_; }
  // Axes of the grid that these axes of the mesh lie on.
  std::vector<std::size_t> grid_axes(std::initializer_list<MeshAxis> axes) const;
  std::int64_t coordinate(sim::RankId rank, MeshAxis axis) const;
  // The rank one further along the axis, and from its end back to its beginning.
  sim::RankId next(sim::RankId rank, MeshAxis axis) const;
  // An axis of the torus is divided among several of the mesh: jax refuses to do that unless it is told to.
  bool splits_torus_axes() const { return splits_; }

 private:
  struct Part {
    MeshAxis axis{};
    std::int64_t size = 1;
  };
  // Parts of each axis of the torus, from neighbouring chips outwards.
  std::vector<std::vector<Part>> lay_on_torus(const std::vector<std::int64_t>& shape, const PerAxis<std::int64_t>& ici);

  PerAxis<std::vector<std::size_t>> on_;  // of each axis, from the innermost
  bool splits_ = false;
  RankGrid grid_;
};

}  // namespace trainyard::strategies
