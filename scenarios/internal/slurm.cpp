#include "scenarios/internal/slurm.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <string_view>

#include "scenarios/internal/process.hpp"
#include "scenarios/outside_failure.hpp"

namespace trainyard::scenarios {
namespace {

// Without the line ends at its end.
std::string said(const EndedProgram& ended) {
  const std::string& text = ended.errors.empty() ? ended.output : ended.errors;
  const std::size_t end = text.find_last_not_of(" \n");
  return end == std::string::npos ? "status " + std::to_string(ended.status) : text.substr(0, end + 1);
}

std::string run_slurm(std::vector<std::string> arguments) {
  const std::string program = arguments.front();
  const EndedProgram ended =
      run_program(std::move(arguments), "Slurm is not here: '" + program + "' is not installed, or not in PATH",
                  {.own_group = true});
  if (ended.status != 0) throw OutsideFailure("Slurm's " + program + " failed: " + said(ended));
  return ended.output;
}

template <class Number>
std::optional<Number> leading_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  return number;
}

struct Refused {
  std::string_view name;
  char letter;  // 0: none
  std::string_view why;
};
constexpr std::array<Refused, 6> refused{{
    {"--array", 'a', "the array is made by `trainyard sweep`; --slurm-tasks says of how many tasks"},
    {"--dependency", 'd', "the job that merges waits for the array"},
    {"--wait", 'W', "`trainyard sweep --slurm` does not wait; --status says how far the jobs are"},
    {"--clusters", 'M', "only the cluster that sbatch submits to by itself is supported"},
    {"--wrap", 0, "what the jobs run is made by `trainyard sweep`"},
    {"--test-only", 0, "nothing would be submitted"},
}};

}  // namespace

SlurmJob submit(const SlurmScript& script) {
  // A later option replaces an earlier one: names and logs are the user's to choose, what makes the sweep work is not.
  std::vector<std::string> arguments{"sbatch", "--job-name=" + script.name, "--output=" + script.log.string()};
  arguments.insert(arguments.end(), script.options.begin(), script.options.end());
  arguments.emplace_back("--parsable");
  if (script.tasks) arguments.push_back("--array=0-" + std::to_string(*script.tasks - 1));
  if (script.after) arguments.push_back("--dependency=afterany:" + std::to_string(*script.after));
  arguments.push_back(script.file.string());
  const std::string answer = run_slurm(std::move(arguments));  // "12" or "12;cluster"
  const auto job = leading_number<SlurmJob>(answer);
  if (!job) throw OutsideFailure("Slurm's sbatch answered '" + answer + "', which is no number of a job");
  return *job;
}

void cancel(SlurmJob job) { run_slurm({"scancel", std::to_string(job)}); }

std::vector<SlurmQueue> queues_of(std::span<const SlurmJob> jobs) {
  std::vector<SlurmQueue> queues(jobs.size());
  if (jobs.empty()) return queues;
  // A single job that Slurm has forgotten is an error to squeue, one of several is not.
  std::string listed = std::to_string(jobs.front());
  for (const SlurmJob job : jobs) listed += "," + std::to_string(job);
  std::istringstream lines(run_slurm({"squeue", "--noheader", "--array", "--jobs=" + listed, "--format=%F %T"}));
  SlurmJob job = 0;
  for (std::string state; lines >> job >> state;) {
    const auto found = std::ranges::find(jobs, job);
    if (found == jobs.end()) continue;
    SlurmQueue& queue = queues[static_cast<std::size_t>(found - jobs.begin())];
    ++(state == "PENDING" ? queue.pending : queue.running);
  }
  return queues;
}

std::string refusal_of(const std::string& option) {
  const std::string name = option.substr(0, option.find('='));
  constexpr std::size_t shortest = 4;  // of the beginnings that getopt_long takes for the whole name
  for (const Refused& one : refused) {
    const bool begins = name.size() >= shortest && one.name.starts_with(name);
    const bool letter = one.letter != 0 && option.size() > 1 && option[0] == '-' && option[1] == one.letter;
    if (begins || letter) return std::string{one.why};
  }
  return {};
}

std::string literal_in_log_name(const std::filesystem::path& path) {
  std::string literal;
  for (const char letter : path.string()) literal += letter == '%' ? "%%" : std::string(1, letter);
  return literal;
}

}  // namespace trainyard::scenarios
