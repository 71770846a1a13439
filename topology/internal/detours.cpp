#include "topology/internal/detours.hpp"

#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/breadth_first_search.hpp>
#include <map>
#include <mutex>
#include <utility>

namespace trainyard::topology {
namespace {

struct Cable {
  std::int64_t link = 0;
};
using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, Cable>;
using Vertex = boost::graph_traits<Graph>::vertex_descriptor;
using Edge = boost::graph_traits<Graph>::edge_descriptor;

// Remembers by which edge each vertex was first reached.
class TreeRecorder : public boost::default_bfs_visitor {
 public:
  explicit TreeRecorder(std::vector<std::optional<Edge>>& reached_by) : reached_by_(&reached_by) {}
  void tree_edge(const Edge& edge, const Graph& graph) const { (*reached_by_)[boost::target(edge, graph)] = edge; }

 private:
  std::vector<std::optional<Edge>>* reached_by_;
};

}  // namespace

struct Detours::State {
  explicit State(std::size_t vertices) : graph(vertices) {}

  Graph graph;
  std::mutex mutex;
  std::map<std::pair<Vertex, Vertex>, std::optional<std::vector<std::int64_t>>> known;

  std::vector<std::optional<Edge>> tree(Vertex root) const {
    std::vector<std::optional<Edge>> reached_by(boost::num_vertices(graph));
    boost::breadth_first_search(graph, root, boost::visitor(TreeRecorder(reached_by)));
    return reached_by;
  }
};

Detours::Detours(std::size_t vertices) : state_(std::make_unique<State>(vertices)) {}
Detours::~Detours() = default;
Detours::Detours(Detours&&) noexcept = default;
Detours& Detours::operator=(Detours&&) noexcept = default;

void Detours::add(std::int64_t from, std::int64_t to, std::int64_t link) {
  boost::add_edge(static_cast<Vertex>(from), static_cast<Vertex>(to), Cable{link}, state_->graph);
}

std::optional<std::vector<std::int64_t>> Detours::path(std::int64_t from, std::int64_t to) const {
  const std::pair<Vertex, Vertex> ends{static_cast<Vertex>(from), static_cast<Vertex>(to)};
  const std::lock_guard lock(state_->mutex);
  const auto [entry, fresh] = state_->known.try_emplace(ends);
  if (!fresh) return entry->second;
  const std::vector<std::optional<Edge>> reached_by = state_->tree(ends.first);
  std::vector<std::int64_t> links;
  for (Vertex vertex = ends.second; vertex != ends.first;) {
    if (!reached_by[vertex]) return std::nullopt;
    links.push_back(state_->graph[*reached_by[vertex]].link);
    vertex = boost::source(*reached_by[vertex], state_->graph);
  }
  std::reverse(links.begin(), links.end());
  entry->second = std::move(links);
  return entry->second;
}

std::optional<std::int64_t> Detours::unreachable(std::int64_t from) const {
  const std::vector<std::optional<Edge>> reached_by = state_->tree(static_cast<Vertex>(from));
  for (std::size_t vertex = 0; vertex < reached_by.size(); ++vertex)
    if (!reached_by[vertex] && static_cast<std::int64_t>(vertex) != from) return static_cast<std::int64_t>(vertex);
  return std::nullopt;
}

}  // namespace trainyard::topology
