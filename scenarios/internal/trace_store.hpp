// Records of a trace on disk, from when they are handed over until they are written in the order of the trace.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "sim/record.hpp"

namespace trainyard::scenarios {

// Times of the simulated clock in picoseconds.
struct TraceOperation {
  std::int64_t start = 0;
  std::int64_t end = 0;
  std::int64_t transfer = 0;
  sim::BlockId block{};
  std::uint32_t op = 0;
  std::int32_t layer = -1;
  std::int32_t micro_batch = -1;
  sim::CommunicatorId communicator{};
  std::uint32_t sequence = 0;
  // Arrows of its communication, and which of them ends here, from 1 on; 0: all of them start here.
  std::uint16_t arrows = 0;
  std::uint16_t arrow = 0;
};

struct TraceMemory {
  std::int64_t when = 0;
  std::array<std::int64_t, sim::memory_purposes> allocated{};
};

// A file without a name, of chunks of one size; it is gone with the program, however that ends.
class ChunkFile {
 public:
  static constexpr std::size_t chunk_bytes = 4096;

  // In the folder where the file `path` is to appear, which has room for it if any has.
  explicit ChunkFile(const std::filesystem::path& path);
  ~ChunkFile();
  ChunkFile(const ChunkFile&) = delete;
  ChunkFile& operator=(const ChunkFile&) = delete;

  // At most chunk_bytes. Throws OutputError.
  std::uint32_t write(std::span<const std::byte> bytes);
  void read(std::uint32_t chunk, std::span<std::byte> bytes) const;
  void reuse(std::span<const std::uint32_t> chunks) { free_.insert(free_.end(), chunks.begin(), chunks.end()); }

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint32_t chunks_ = 0;
  std::vector<std::uint32_t> free_;
};

// Values in the order in which they were added: all but the last few of them in the file.
template <class Value>
class Series {
  static_assert(std::is_trivially_copyable_v<Value>);
  static constexpr std::size_t per_chunk = ChunkFile::chunk_bytes / sizeof(Value);

 public:
  void add(ChunkFile& file, const Value& value) {
    if (latest_.empty()) latest_.reserve(per_chunk);
    latest_.push_back(value);
    if (latest_.size() < per_chunk) return;
    chunks_.push_back(file.write(std::as_bytes(std::span(latest_))));
    latest_.clear();
  }
  std::span<const std::uint32_t> chunks() const { return chunks_; }

  // Reads them from the first on.
  class Reader {
   public:
    Reader(const Series& series, const ChunkFile& file) : series_(&series), file_(&file) {}
    // Null at the end; valid until the next call.
    const Value* next() {
      if (at_ == values_.size() && !fetch()) return nullptr;
      return &values_[at_++];
    }

   private:
    bool fetch() {
      if (chunk_ > series_->chunks_.size()) return false;
      if (chunk_ == series_->chunks_.size()) {
        values_ = series_->latest_;
      } else {
        values_.resize(per_chunk);
        file_->read(series_->chunks_[chunk_], std::as_writable_bytes(std::span(values_)));
      }
      ++chunk_;
      at_ = 0;
      return !values_.empty();
    }

    const Series* series_;
    const ChunkFile* file_;
    std::size_t chunk_ = 0;
    std::vector<Value> values_;
    std::size_t at_ = 0;
  };

 private:
  std::vector<std::uint32_t> chunks_;
  std::vector<Value> latest_;
};

class TraceStore {
 public:
  explicit TraceStore(const std::filesystem::path& path) : file_(path) {}

  void add(std::uint32_t repetition, sim::RankId rank, sim::StreamId stream, const TraceOperation& operation);
  void add(std::uint32_t repetition, sim::RankId rank, const TraceMemory& memory);
  void drop(std::uint32_t repetition);

  // What is read is of the one repetition that was not dropped. Ranks in order.
  std::vector<sim::RankId> ranks() const;
  using Operations = Series<TraceOperation>::Reader;
  using Memory = Series<TraceMemory>::Reader;
  // Nothing where the stream did nothing.
  std::optional<Operations> operations(sim::RankId rank, sim::StreamId stream) const;
  Memory memory(sim::RankId rank) const;
  // The first start and the last end of an operation.
  std::optional<std::pair<std::int64_t, std::int64_t>> extent() const;

 private:
  struct Rank {
    std::array<Series<TraceOperation>, sim::most_streams> streams;
    std::array<bool, sim::most_streams> used{};
    Series<TraceMemory> memory;
  };
  struct Repetition {
    std::map<sim::RankId, Rank> ranks;
    std::optional<std::pair<std::int64_t, std::int64_t>> extent;
  };
  const Repetition* kept() const;

  ChunkFile file_;
  std::map<std::uint32_t, Repetition> repetitions_;
};

}  // namespace trainyard::scenarios
