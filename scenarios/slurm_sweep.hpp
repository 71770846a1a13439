// A sweep spread over a Slurm cluster: an array of jobs simulates the points, each task a share into a part of its own,
// and one more job merges the parts into the results store when all of them have ended.
//
// What they share lies in a folder beside the store, which every node must see:
//   submission.json              the jobs and how much they have to do
//   share.sh, merge.sh           what they run
//   task-0.points …              the points of each task, by their parameters, one a line
//   part-0.db …                  what a task has simulated, until it is merged
//   task-0.progress …            a letter for every point in the part: '+' simulated, '-' not possible
//   task-0.log …, merge.log      what the jobs print
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/catalog.hpp"
#include "scenarios/results_store.hpp"
#include "scenarios/run_sweep.hpp"
#include "scenarios/sweep.hpp"

namespace trainyard::scenarios {

// "results.db.slurm/NAME", so that sweeps may share a store.
std::filesystem::path slurm_folder(const std::filesystem::path& store, const std::string& sweep);

// The options of sbatch in a line, split as a shell would. Throws ScenarioError where it ends within a quotation, or
// where an option would take the jobs apart (--array, --dependency, …).
std::vector<std::string> sbatch_options(const std::string& line);

// The points dealt out to as many tasks, large and small ones to each.
std::vector<std::vector<std::size_t>> shares_of(const Sweep& sweep, const std::vector<std::size_t>& points,
                                                std::size_t tasks);

struct SlurmSubmission {
  std::uint32_t array = 0;  // numbers of jobs
  std::optional<std::uint32_t> merge;
  std::size_t tasks = 0;
  std::size_t points = 0;
};

struct SlurmSubmitOptions {
  std::vector<std::string> share_command;  // what runs this program, in the current folder, to simulate a share
  std::vector<std::string> merge_command;
  std::vector<std::string> sbatch;  // options of both jobs
  std::size_t tasks = 0;            // 0: so that each has several points, and no more than sites let users queue
};

// Replaces what an earlier submission has left in the folder. Submits both jobs or, where that fails or somebody asks
// the program to end, none. Throws OutsideFailure with what Slurm says.
SlurmSubmission submit_to_slurm(const Sweep& sweep, const std::vector<std::size_t>& points,
                                const std::filesystem::path& folder, const SlurmSubmitOptions& options);

// Which task of the array this is, and how many cores it has. Nothing outside of one.
struct SlurmTask {
  std::size_t number = 0;
  int cores = 1;
};
std::optional<SlurmTask> this_slurm_task();

// What a task does: simulates the points of its share which its part lacks.
SweepProgress run_share(const Sweep& sweep, const Catalog& catalog, const std::filesystem::path& folder,
                        std::size_t task, const RunSweepOptions& options);

struct MergedParts {
  std::size_t parts = 0;
  std::size_t busy = 0;  // left, since a task still writes them
};
// Takes over what parts have, whether their tasks have finished or were killed, and removes each once its rows are on
// the disk. An outdated row does not replace one of the store.
MergedParts merge_parts(const Sweep& sweep, const Catalog& catalog, ResultsStore& store, const std::string& program,
                        const std::filesystem::path& folder);

struct SlurmState {
  SlurmSubmission submission;
  std::string silence;           // why Slurm does not say what is queued; empty: it does
  std::size_t pending = 0;       // tasks
  std::size_t running = 0;       // tasks
  bool merge_pending = false;    // or running
  std::size_t simulated = 0;     // points in parts
  std::size_t not_possible = 0;  // points in parts
  bool live() const { return pending + running > 0 || merge_pending; }
};
// Of what was submitted last; nothing where nothing was.
std::optional<SlurmState> slurm_state(const std::filesystem::path& folder);
std::string to_text(const SlurmState& state, const std::filesystem::path& folder);

// When all is merged and nothing of it runs.
void remove_slurm_folder(const std::filesystem::path& folder);

}  // namespace trainyard::scenarios
