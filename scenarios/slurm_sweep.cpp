#include "scenarios/slurm_sweep.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/process.hpp"
#include "scenarios/internal/scenario_hash.hpp"
#include "scenarios/internal/shell_words.hpp"
#include "scenarios/internal/slurm.hpp"
#include "scenarios/output_file.hpp"
#include "scenarios/outside_failure.hpp"

namespace trainyard::scenarios {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t points_per_task = 8;  // a task takes a second to start, most points less
constexpr std::size_t most_tasks = 100;     // Slurm's default of MaxArraySize is 1001, for all arrays of a site

fs::path file_of(const fs::path& folder, std::string_view what, std::size_t task, std::string_view extension) {
  return folder / (std::string{what} + "-" + std::to_string(task) + std::string{extension});
}
fs::path points_file(const fs::path& folder, std::size_t task) { return file_of(folder, "task", task, ".points"); }
fs::path progress_file(const fs::path& folder, std::size_t task) { return file_of(folder, "task", task, ".progress"); }
fs::path part_file(const fs::path& folder, std::size_t task) { return file_of(folder, "part", task, ".db"); }
fs::path submission_file(const fs::path& folder) { return folder / "submission.json"; }

// As a name of a file: two sweeps whose names differ only in other letters are told apart by a hash.
std::string plain_name(const std::string& name) {
  std::string plain;
  for (const char letter : name) {
    const bool kept = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                      (letter >= '0' && letter <= '9') || letter == '-' || letter == '_' || letter == '.';
    plain += kept ? letter : '-';
  }
  constexpr std::size_t longest = 64;
  constexpr std::size_t digits = 8;
  const bool same = plain == name && plain.size() <= longest && plain.find_first_not_of('.') != std::string::npos;
  return same ? plain : plain.substr(0, longest) + "-" + hash_of(name).substr(0, digits);
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  fs::create_directories(folder, error);
  if (error) throw OutputError(folder, error.value());
}

void write_points(const Sweep& sweep, const std::vector<std::vector<std::size_t>>& shares, const fs::path& folder) {
  for (std::size_t task = 0; task < shares.size(); ++task) {
    std::string lines;
    for (const std::size_t position : shares[task]) lines += to_json(sweep.points()[position].parameters) + "\n";
    write_file(points_file(folder, task), lines);
  }
}

SlurmScript script_of(const fs::path& folder, const std::string& name, const std::string& what,
                      const std::vector<std::string>& command, const SlurmSubmitOptions& options) {
  const fs::path file = folder / (name + ".sh");
  write_file(file, "#!/bin/sh\n# " + what + "\ncd " + shell_quoted(fs::current_path().string()) + " || exit 4\nexec " +
                       shell_line(command) + "\n");
  return {.file = file,
          .log = {},
          .name = "trainyard-" + folder.filename().string() + "-" + name,
          .tasks = std::nullopt,
          .after = std::nullopt,
          .options = options.sbatch};
}

void write_submission(const SlurmSubmission& submission, const fs::path& folder) {
  Json json{
      {"array", submission.array}, {"merge", nullptr}, {"tasks", submission.tasks}, {"points", submission.points}};
  if (submission.merge) json["merge"] = *submission.merge;
  write_file(submission_file(folder), json.dump(2) + "\n");
}

// Nothing where the program was ended before it could say.
std::optional<SlurmSubmission> read_submission(const fs::path& folder) {
  std::ifstream stream(submission_file(folder));
  const Json json = Json::parse(stream, nullptr, false);
  if (json.is_discarded()) return std::nullopt;
  SlurmSubmission submission{.array = json.value("array", 0U),
                             .merge = std::nullopt,
                             .tasks = json.value("tasks", std::size_t{0}),
                             .points = json.value("points", std::size_t{0})};
  if (json.contains("merge") && json["merge"].is_number()) submission.merge = json["merge"].get<SlurmJob>();
  return submission;
}

void withdraw(const std::vector<SlurmJob>& jobs) {
  for (const SlurmJob job : jobs) {
    try {
      cancel(job);
    } catch (const OutsideFailure& failure) {
      spdlog::warn("job {} is submitted and cannot be cancelled: {}", job, failure.what());
    }
  }
}

// Half of a submission is none: tasks whose parts nobody merges are worse than an error.
SlurmSubmission submit_both(SlurmSubmission submission, SlurmScript share, SlurmScript merge, const fs::path& folder) {
  const HeldSignals signals;
  std::vector<SlurmJob> jobs;
  try {
    submission.array = jobs.emplace_back(submit(share));
    write_submission(submission, folder);
    if (signals.any()) throw OutsideFailure("stopped before all was submitted to Slurm");
    merge.after = submission.array;
    submission.merge = jobs.emplace_back(submit(merge));
    write_submission(submission, folder);
  } catch (...) {
    withdraw(jobs);
    remove_slurm_folder(folder);
    throw;
  }
  return submission;
}

std::optional<int> number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  const std::string_view digits = text;
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size() || number < 0) return std::nullopt;
  return number;
}

}  // namespace

fs::path slurm_folder(const fs::path& store, const std::string& sweep) {
  std::error_code error;
  fs::path folder = fs::absolute(store, error);
  folder += ".slurm";
  return folder / plain_name(sweep);
}

std::vector<std::string> sbatch_options(const std::string& line) {
  const Location place{"--slurm-args", 0, 0};
  const auto words = shell_words(line);
  if (!words) throw ScenarioError(place, "expected options of sbatch, got a quotation that does not end: " + line);
  for (const std::string& word : *words)
    if (const std::string why = refusal_of(word); !why.empty())
      throw ScenarioError(place, "'" + word + "' cannot be passed through: " + why);
  return *words;
}

std::vector<std::vector<std::size_t>> shares_of(const Sweep& sweep, const std::vector<std::size_t>& points,
                                                std::size_t tasks) {
  if (tasks == 0) tasks = std::min((points.size() + points_per_task - 1) / points_per_task, most_tasks);
  std::vector<std::vector<std::size_t>> shares(std::min(tasks, points.size()));
  std::size_t dealt = 0;
  for (const std::size_t position : mixed(sweep, points)) shares[dealt++ % shares.size()].push_back(position);
  return shares;
}

SlurmSubmission submit_to_slurm(const Sweep& sweep, const std::vector<std::size_t>& points, const fs::path& folder,
                                const SlurmSubmitOptions& options) {
  const auto shares = shares_of(sweep, points, options.tasks);
  make_folder(folder);
  write_points(sweep, shares, folder);
  SlurmScript share = script_of(folder, "share", "One task: simulates its share of points into a part of the store.",
                                options.share_command, options);
  SlurmScript merge = script_of(folder, "merge", "Merges the parts that the tasks have written into the store.",
                                options.merge_command, options);
  const std::string logs = literal_in_log_name(folder);
  share.tasks = shares.size();
  share.log = logs + "/task-%a.log";
  merge.log = logs + "/merge.log";
  const SlurmSubmission submission{.array = 0, .merge = std::nullopt, .tasks = shares.size(), .points = points.size()};
  return submit_both(submission, share, merge, folder);
}

std::optional<SlurmTask> this_slurm_task() {
  const auto number = number_in_environment("SLURM_ARRAY_TASK_ID");
  if (!number) return std::nullopt;
  auto cores = number_in_environment("SLURM_CPUS_PER_TASK");  // only where --cpus-per-task was given
  if (!cores) cores = number_in_environment("SLURM_CPUS_ON_NODE");
  return SlurmTask{.number = static_cast<std::size_t>(*number),
                   .cores = std::max(1, cores.value_or(static_cast<int>(std::thread::hardware_concurrency())))};
}

SweepProgress run_share(const Sweep& sweep, const Catalog& catalog, const fs::path& folder, std::size_t task,
                        const RunSweepOptions& options) {
  std::ifstream lines(points_file(folder, task));
  if (!lines)
    throw OutsideFailure("task " + std::to_string(task) + " has no list of points in '" + folder.string() + "'");
  std::set<std::string, std::less<>> share;
  for (std::string line; std::getline(lines, line);) share.insert(line);

  ResultsStore part(part_file(folder, task), ResultsStore::Access::alone);
  const SweepState state = state_of(sweep, catalog, part, options.program);
  std::vector<std::size_t> to_do;
  for (const std::size_t position : state.to_do)
    if (share.contains(to_json(sweep.points()[position].parameters))) to_do.push_back(position);

  std::ofstream progress(progress_file(folder, task));
  const auto tell = [&](std::size_t simulated, std::size_t failed) {
    progress << std::string(simulated, '+') << std::string(failed, '-') << std::flush;
  };
  tell(state.done, state.failed);  // before the task was started again
  SweepProgress told;
  RunSweepOptions telling = options;
  telling.progress = [&](const SweepProgress& now) {
    const std::size_t failed = now.failed - told.failed;
    tell(now.finished - told.finished - failed, failed);
    told = now;
  };
  return run_sweep(sweep, to_do, catalog, part, telling);
}

namespace {

// The numbers of tasks whose parts lie in the folder.
std::vector<std::size_t> parts_in(const fs::path& folder) {
  constexpr std::string_view before = "part-";
  std::vector<std::size_t> tasks;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    std::size_t task = 0;
    const bool part = name.starts_with(before) && name.ends_with(".db");
    if (part && std::from_chars(name.data() + before.size(), name.data() + name.size(), task).ec == std::errc{})
      tasks.push_back(task);
  }
  std::ranges::sort(tasks);
  return tasks;
}

// Nothing where its task still writes it.
std::unique_ptr<ResultsStore> open_part(const fs::path& file) {
  try {
    return std::make_unique<ResultsStore>(file, ResultsStore::Access::alone);
  } catch (const StoreLocked&) {
    return nullptr;
  }
}

void take_over(const Sweep& sweep, const Catalog& catalog, ResultsStore& store, const ResultsStore& part,
               const std::string& program) {
  std::set<std::string, std::less<>> outdated;
  for (const std::size_t position : state_of(sweep, catalog, part, program).to_do)
    outdated.insert(to_json(sweep.points()[position].parameters));
  const auto known = store.states(sweep.name());
  for (const auto& [parameters, state] : part.states(sweep.name())) {
    if (outdated.contains(parameters) && known.contains(parameters)) continue;
    store.put(sweep.name(), part.find(sweep.name(), parameters).value());
  }
  store.commit();
}

void remove_part(const fs::path& folder, std::size_t task) {
  const fs::path part = part_file(folder, task);
  std::error_code error;  // whatever stays is merged once more, which changes nothing
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) fs::remove(part.string() + suffix, error);
  fs::remove(progress_file(folder, task), error);
}

std::string tasks_text(const SlurmState& state) {
  const std::size_t ended = state.submission.tasks - std::min(state.submission.tasks, state.pending + state.running);
  return std::to_string(state.pending) + " pending, " + std::to_string(state.running) + " running, " +
         std::to_string(ended) + " ended";
}

std::string jobs_text(const SlurmSubmission& submission) {
  return "array job " + std::to_string(submission.array) +
         (submission.merge ? ", merge job " + std::to_string(*submission.merge) : "");
}

}  // namespace

MergedParts merge_parts(const Sweep& sweep, const Catalog& catalog, ResultsStore& store, const std::string& program,
                        const fs::path& folder) {
  MergedParts merged;
  for (const std::size_t task : parts_in(folder)) {
    const std::unique_ptr<ResultsStore> part = open_part(part_file(folder, task));
    if (!part) {
      ++merged.busy;
      continue;
    }
    take_over(sweep, catalog, store, *part, program);
    remove_part(folder, task);  // while it is open, so that no task begins to write it before
    ++merged.parts;
  }
  return merged;
}

std::optional<SlurmState> slurm_state(const fs::path& folder) {
  const auto submission = read_submission(folder);
  if (!submission) return std::nullopt;
  SlurmState state;
  state.submission = *submission;
  std::vector<SlurmJob> jobs{submission->array};
  if (submission->merge) jobs.push_back(*submission->merge);
  try {
    const std::vector<SlurmQueue> queues = queues_of(jobs);
    state.pending = queues.front().pending;
    state.running = queues.front().running;
    state.merge_pending = queues.size() > 1 && !queues.back().empty();
  } catch (const OutsideFailure& failure) {
    state.silence = failure.what();
  }
  for (const std::size_t task : parts_in(folder)) {
    std::ifstream progress(progress_file(folder, task));
    for (char letter = 0; progress.get(letter);) ++(letter == '+' ? state.simulated : state.not_possible);
  }
  return state;
}

std::string to_text(const SlurmState& state, const fs::path& folder) {
  std::string text = "Slurm: " + jobs_text(state.submission) + "; ";
  if (!state.silence.empty())
    text += "what became of them is not known, since it does not answer (" + state.silence + ")";
  else if (state.live())
    text += "of " + std::to_string(state.submission.tasks) + " tasks " + tasks_text(state);
  else
    text += "all have ended";
  if (state.simulated + state.not_possible > 0)
    text += "; in parts that are not merged yet, " + std::to_string(state.simulated) + " points simulated, " +
            std::to_string(state.not_possible) + " failed";
  return text + "; logs in " + folder.string() + "\n";
}

void remove_slurm_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  fs::remove(folder.parent_path(), error);  // where no other sweep has one in it
}

}  // namespace trainyard::scenarios
