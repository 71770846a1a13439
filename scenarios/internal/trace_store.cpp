#include "scenarios/internal/trace_store.hpp"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "scenarios/output_file.hpp"
#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

constexpr int closed = -1;

// Pipes and devices have no folder of their own to fill.
std::filesystem::path folder_of(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error))
    return std::filesystem::temp_directory_path(error);
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  const std::filesystem::path& place = error ? path : target;
  return place.has_parent_path() ? place.parent_path() : std::filesystem::path(".");
}

int open_without_name(const std::filesystem::path& folder) {
  const int descriptor = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
  if (descriptor != closed || (errno != EOPNOTSUPP && errno != EISDIR)) return descriptor;
  // File systems that cannot do that: it has a name for a moment.
  std::string name = (folder / ".trainyard-trace-XXXXXX").string();
  const int named = mkostemp(name.data(), O_CLOEXEC);
  if (named != closed) unlink(name.c_str());
  return named;
}

}  // namespace

ChunkFile::ChunkFile(const std::filesystem::path& path) : path_(path), descriptor_(open_without_name(folder_of(path))) {
  if (descriptor_ == closed) throw OutputError(path_, errno);
}

ChunkFile::~ChunkFile() { close(descriptor_); }

std::uint32_t ChunkFile::write(std::span<const std::byte> bytes) {
  sim::ensure(bytes.size() <= chunk_bytes, "a chunk holds what is written to it");
  std::uint32_t chunk = chunks_;
  if (free_.empty()) {
    ++chunks_;
  } else {
    chunk = free_.back();
    free_.pop_back();
  }
  off_t offset = static_cast<off_t>(chunk) * static_cast<off_t>(chunk_bytes);
  while (!bytes.empty()) {
    const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw OutputError(path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
  return chunk;
}

void ChunkFile::read(std::uint32_t chunk, std::span<std::byte> bytes) const {
  off_t offset = static_cast<off_t>(chunk) * static_cast<off_t>(chunk_bytes);
  while (!bytes.empty()) {
    const ssize_t count = pread(descriptor_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw OutputError(path_, count < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += count;
  }
}

void TraceStore::add(std::uint32_t repetition, sim::RankId rank, sim::StreamId stream,
                     const TraceOperation& operation) {
  Repetition& all = repetitions_[repetition];
  if (!all.extent) all.extent.emplace(operation.start, operation.end);
  all.extent->first = std::min(all.extent->first, operation.start);
  all.extent->second = std::max(all.extent->second, operation.end);
  Rank& of_rank = all.ranks[rank];
  of_rank.used.at(index_of(stream)) = true;
  of_rank.streams.at(index_of(stream)).add(file_, operation);
}

void TraceStore::add(std::uint32_t repetition, sim::RankId rank, const TraceMemory& memory) {
  repetitions_[repetition].ranks[rank].memory.add(file_, memory);
}

void TraceStore::drop(std::uint32_t repetition) {
  const auto found = repetitions_.find(repetition);
  if (found == repetitions_.end()) return;
  for (const auto& [id, rank] : found->second.ranks) {
    for (const Series<TraceOperation>& stream : rank.streams) file_.reuse(stream.chunks());
    file_.reuse(rank.memory.chunks());
  }
  repetitions_.erase(found);
}

const TraceStore::Repetition* TraceStore::kept() const {
  sim::ensure(repetitions_.size() <= 1, "one repetition is measured");
  return repetitions_.empty() ? nullptr : &repetitions_.begin()->second;
}

std::vector<sim::RankId> TraceStore::ranks() const {
  std::vector<sim::RankId> result;
  if (kept() == nullptr) return result;
  for (const auto& [id, rank] : kept()->ranks) result.push_back(id);
  return result;
}

std::optional<TraceStore::Operations> TraceStore::operations(sim::RankId rank, sim::StreamId stream) const {
  const Rank& of_rank = kept()->ranks.at(rank);
  if (!of_rank.used.at(index_of(stream))) return std::nullopt;
  return Operations(of_rank.streams.at(index_of(stream)), file_);
}

TraceStore::Memory TraceStore::memory(sim::RankId rank) const { return Memory(kept()->ranks.at(rank).memory, file_); }

std::optional<std::pair<std::int64_t, std::int64_t>> TraceStore::extent() const {
  return kept() == nullptr ? std::nullopt : kept()->extent;
}

}  // namespace trainyard::scenarios
