// `trainyard sweep --slurm`: what the command does on a Slurm cluster, as seen from the one who submits and in its
// jobs.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/results_store.hpp"
#include "scenarios/run_sweep.hpp"
#include "scenarios/slurm_sweep.hpp"
#include "scenarios/sweep.hpp"

namespace trainyard::tools {

struct SlurmArguments {
  bool submit = false;
  std::string options;  // of sbatch
  std::size_t tasks = 0;
  // In jobs; the folder of the submission.
  std::filesystem::path share;
  std::filesystem::path merge;
};

void add_slurm_options(CLI::App& command, SlurmArguments& arguments);

// Simulates the share of this job's task. Returns how many points that were.
scenarios::SweepProgress run_share_of_task(const scenarios::Sweep& sweep, const scenarios::Catalog& catalog,
                                           const SlurmArguments& arguments, scenarios::RunSweepOptions options,
                                           bool jobs_given);

// Of an earlier submission; nothing where there is none, and in the jobs themselves. Throws OutsideFailure where its
// jobs would get in the way: of a local run those that are queued or running, of a submission a Slurm that is silent.
std::optional<scenarios::SlurmState> earlier_submission(const std::filesystem::path& folder,
                                                        const SlurmArguments& arguments, bool status);

// Merges what tasks have left. Throws OutsideFailure where one that should have ended still writes.
void merge_left_parts(const scenarios::Sweep& sweep, const scenarios::Catalog& catalog, scenarios::ResultsStore& store,
                      const std::string& program, const std::filesystem::path& folder);

// Both jobs run this program with the command's `arguments`, the merge also with those of its `outputs`. Says which
// jobs.
std::string submit(const scenarios::Sweep& sweep, const scenarios::SweepState& state,
                   const std::filesystem::path& folder, const SlurmArguments& slurm,
                   const std::vector<std::string>& arguments, const std::vector<std::string>& outputs);

}  // namespace trainyard::tools
