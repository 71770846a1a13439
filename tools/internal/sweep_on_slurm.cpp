#include "tools/internal/sweep_on_slurm.hpp"

#include <system_error>
#include <utility>

#include "scenarios/outside_failure.hpp"
#include "tools/internal/command.hpp"

namespace trainyard::tools {
namespace {

// A program that was replaced since it began lies nowhere that a job could start it from.
std::string own_path() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error || !std::filesystem::exists(path, error))
    throw scenarios::OutsideFailure("the program's file is gone, so that no job can run it");
  return path.string();
}

std::vector<std::string> joined(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace

void add_slurm_options(CLI::App& command, SlurmArguments& arguments) {
  CLI::Option* slurm = command.add_flag("--slurm", arguments.submit,
                                        "spread the points over a Slurm cluster: submit an array of jobs, and one that "
                                        "merges what they find, then return");
  command
      .add_option("--slurm-args", arguments.options,
                  "options of sbatch for all jobs, e.g. \"--partition=long --time=2:00:00 --cpus-per-task=8\"")
      ->type_name("TEXT")
      ->needs(slurm);
  command
      .add_option("--slurm-tasks", arguments.tasks,
                  "tasks of the array; without it one for every 8 points, at most 100")
      ->check(CLI::Range(1, 100'000))
      ->type_name("N")
      ->needs(slurm);
  // What jobs are started with; no group: nothing that users need to see.
  command.add_option("--slurm-share", arguments.share)->group("");
  command.add_option("--slurm-merge", arguments.merge)->group("");
}

scenarios::SweepProgress run_share_of_task(const scenarios::Sweep& sweep, const scenarios::Catalog& catalog,
                                           const SlurmArguments& arguments, scenarios::RunSweepOptions options,
                                           bool jobs_given) {
  const auto task = scenarios::this_slurm_task();
  if (!task)
    wrong_argument("--slurm-share", "expected to be in a task of an array, whose number SLURM_ARRAY_TASK_ID is");
  if (!jobs_given) options.jobs = task->cores;
  return scenarios::run_share(sweep, catalog, arguments.share, task->number, options);
}

std::optional<scenarios::SlurmState> earlier_submission(const std::filesystem::path& folder,
                                                        const SlurmArguments& arguments, bool status) {
  if (!arguments.merge.empty()) return std::nullopt;
  auto state = scenarios::slurm_state(folder);
  if (!state || status) return state;
  if (arguments.submit && !state->silence.empty()) throw scenarios::OutsideFailure(state->silence);
  if (!arguments.submit && state->live())
    throw scenarios::OutsideFailure(
        "jobs of this sweep are queued or running, so that points would be simulated twice; "
        "wait for their end, or end them with scancel\n" +
        scenarios::to_text(*state, folder));
  return state;
}

void merge_left_parts(const scenarios::Sweep& sweep, const scenarios::Catalog& catalog, scenarios::ResultsStore& store,
                      const std::string& program, const std::filesystem::path& folder) {
  const scenarios::MergedParts merged = scenarios::merge_parts(sweep, catalog, store, program, folder);
  if (merged.busy > 0)
    throw scenarios::OutsideFailure(std::to_string(merged.busy) + " parts of the sweep in '" + folder.string() +
                                    "' are still written by a task; the others are merged");
}

std::string submit(const scenarios::Sweep& sweep, const scenarios::SweepState& state,
                   const std::filesystem::path& folder, const SlurmArguments& slurm,
                   const std::vector<std::string>& arguments, const std::vector<std::string>& outputs) {
  const std::vector<std::string> command = joined({own_path(), "sweep"}, arguments);
  const scenarios::SlurmSubmitOptions options{
      .share_command = joined(command, {"--slurm-share=" + folder.string()}),
      .merge_command = joined(joined(command, outputs), {"--slurm-merge=" + folder.string()}),
      .sbatch = scenarios::sbatch_options(slurm.options),
      .tasks = slurm.tasks};
  const scenarios::SlurmSubmission submission = scenarios::submit_to_slurm(sweep, state.to_do, folder, options);
  return "Slurm: submitted array job " + std::to_string(submission.array) + " of " + std::to_string(submission.tasks) +
         (submission.tasks == 1 ? " task for " : " tasks for ") + std::to_string(submission.points) +
         " points, and merge job " + std::to_string(submission.merge.value()) + " after it; logs in " +
         folder.string() +
         "\n--status says how far they are; when they have ended, the same command submits what is still missing.\n";
}

}  // namespace trainyard::tools
