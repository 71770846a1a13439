// Slurm's commands: sbatch, squeue and scancel, as their manuals have them since Slurm 20.11.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace trainyard::scenarios {

using SlurmJob = std::uint32_t;  // its number

struct SlurmScript {
  std::filesystem::path file;
  std::filesystem::path log;                  // what it prints; of an array "%a" is the task's number
  std::string name;                           // of the job
  std::optional<std::size_t> tasks;           // an array of so many
  std::optional<SlurmJob> after;              // starts when this has ended, however it did
  std::span<const std::string> options = {};  // the user's
};

// Returns its number. Throws OutsideFailure with what sbatch says where it does not take the job, as all below do.
SlurmJob submit(const SlurmScript& script);
void cancel(SlurmJob job);

// What is queued or running of a job and, of an array, its tasks; nothing of those that have ended.
struct SlurmQueue {
  std::size_t pending = 0;
  std::size_t running = 0;
  bool empty() const { return pending + running == 0; }
};
// Of each job, in their order.
std::vector<SlurmQueue> queues_of(std::span<const SlurmJob> jobs);

// Why an option of sbatch cannot be passed through; empty: it can.
std::string refusal_of(const std::string& option);

// A path in which sbatch replaces nothing.
std::string literal_in_log_name(const std::filesystem::path& path);

}  // namespace trainyard::scenarios
