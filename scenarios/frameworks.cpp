#include "scenarios/frameworks.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <exception>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "sim/broken_invariant.hpp"
#include "strategies/plugin.hpp"

namespace trainyard::scenarios {
namespace {

using strategies::Job;
using strategies::Strategy;

// What `call` gives. `doing`: "check()".
template <class Call>
auto guarded(const Framework& framework, std::string_view doing, const Call& call) {
  const auto failure = [&](std::string_view why) {
    return ScenarioError({.file = framework.plugin}, "the plug-in's framework '" + std::string{framework.entry.name} +
                                                         "' failed in " + std::string{doing} + ": " + std::string{why});
  };
  try {
    const sim::ThrowBrokenInvariants of_the_plugin;
    return call();
  } catch (const sim::TooLarge&) {
    throw;
  } catch (const sim::BrokenInvariant& error) {
    throw failure(std::string{"it breaks a rule: "} + error.what());
  } catch (const std::exception& error) {
    throw failure(error.what());
  } catch (...) {
    throw failure("it threw something that is no std::exception");
  }
}

class PluginStrategy final : public Strategy {
 public:
  explicit PluginStrategy(const Framework& framework)
      : framework_(framework), strategy_(guarded(framework_, "make()", framework.entry.make)) {
    if (strategy_ == nullptr)
      throw ScenarioError({.file = framework.plugin},
                          "the plug-in's framework '" + std::string{framework.entry.name} + "' makes no strategy");
  }

  std::vector<sim::Key> keys() override {
    return guarded(framework_, "keys()", [&] { return strategy_->keys(); });
  }
  std::vector<strategies::Problem> check(const Job& job) const override {
    return guarded(framework_, "check()", [&] { return strategy_->check(job); });
  }
  std::vector<std::string> warnings(const Job& job) const override {
    return guarded(framework_, "warnings()", [&] { return strategy_->warnings(job); });
  }
  strategies::PlannedStep plan(const Job& job) const override {
    return guarded(framework_, "plan()", [&] { return strategy_->plan(job); });
  }
  std::vector<strategies::SearchKey> search_keys(const Job& job) const override {
    return guarded(framework_, "search_keys()", [&] { return strategy_->search_keys(job); });
  }

 private:
  Framework framework_;
  std::unique_ptr<Strategy> strategy_;
};

[[noreturn]] void refuse(const std::filesystem::path& file, std::string message) {
  throw ScenarioError({.file = file.string()}, std::move(message));
}

// What the loader says, without the name of the file, which stands before it anyway.
std::string loader_message(const std::filesystem::path& file) {
  const char* text = dlerror();
  std::string message = text == nullptr ? "the loader does not say why" : text;
  const std::string prefix = file.string() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

void require_shared_library(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) refuse(file, "no such file");
  if (std::filesystem::is_directory(file, error)) refuse(file, "expected a shared library, got a folder");
  std::ifstream in{file, std::ios::binary};
  if (!in) refuse(file, "cannot be read");
  constexpr std::string_view magic = "\177ELF";
  std::array<char, magic.size()> start{};
  in.read(start.data(), start.size());
  if (std::string_view{start.data(), start.size()} != magic)
    refuse(file, "expected a shared library with strategies (strategies/plugin.hpp), got another kind of file");
}

// Throws unless the library was built for this program.
void require_same_interface(const std::filesystem::path& file, const strategies::Plugin& plugin) {
  if (plugin.version != strategies::interface_version)
    refuse(file, "was built for version " + std::to_string(plugin.version) +
                     " of the strategy interface, this trainyard has version " +
                     std::to_string(strategies::interface_version) + ": rebuild it");
  if (plugin.layout != strategies::interface_layout())
    refuse(file,
           "was built with other headers or another standard library than this trainyard, though for the same "
           "version of the strategy interface, " +
               std::to_string(plugin.version) + ": rebuild it");
}

// The library's own table. One that misses functions is loaded all the same, to say first whether it is of another
// version: then it has every right to.
const strategies::Plugin& table_of(const std::filesystem::path& file) {
  require_shared_library(file);
  // Without a slash the loader would search its own folders.
  const std::filesystem::path place = std::filesystem::absolute(file);
  std::string missing;
  void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    missing = loader_message(place);
    library = dlopen(place.c_str(), RTLD_LAZY | RTLD_LOCAL);
  }
  if (library == nullptr) refuse(file, "cannot be loaded: " + missing);
  const std::string function{strategies::plugin_function_name};
  void* symbol = dlsym(library, function.c_str());
  if (symbol == nullptr)
    refuse(file, "exports no function '" + function + "': expected a library of strategies (strategies/plugin.hpp)");
  const strategies::Plugin* plugin = reinterpret_cast<strategies::PluginFunction>(symbol)();
  if (plugin == nullptr) refuse(file, "its function '" + function + "' gives nothing");
  require_same_interface(file, *plugin);
  if (!missing.empty()) refuse(file, "needs a function that this trainyard does not have, rebuild it: " + missing);
  return *plugin;
}

std::vector<Framework> frameworks_of(const std::filesystem::path& file) {
  const strategies::Plugin& plugin = table_of(file);
  if (plugin.entry_count == 0) refuse(file, "offers no strategy");
  std::vector<Framework> frameworks;
  for (const strategies::StrategyEntry& entry : std::span{plugin.entries, plugin.entry_count}) {
    if (entry.name.empty() || entry.make == nullptr) refuse(file, "offers a strategy without a name or a function");
    frameworks.push_back({.entry = entry, .plugin = file.string()});
  }
  return frameworks;
}

}  // namespace

std::unique_ptr<strategies::Strategy> Framework::make() const {
  if (plugin.empty()) return entry.make();
  return std::make_unique<PluginStrategy>(*this);
}

std::vector<Framework> built_in_frameworks() {
  std::vector<Framework> frameworks;
  for (const strategies::StrategyEntry& entry : strategies::catalog()) frameworks.push_back({.entry = entry});
  return frameworks;
}

std::vector<Framework> with_plugins(std::span<const std::filesystem::path> plugins) {
  std::vector<Framework> added;
  std::vector<Diagnostic> mistakes;
  for (const std::filesystem::path& file : plugins) {
    try {
      const std::vector<Framework> found = frameworks_of(file);
      added.insert(added.end(), found.begin(), found.end());
    } catch (const ScenarioError& error) {
      mistakes.insert(mistakes.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
  }
  std::ranges::sort(added, {}, [](const Framework& one) {
    return std::pair{one.entry.name, std::string_view{one.plugin}};
  });
  std::vector<Framework> frameworks = built_in_frameworks();
  for (const Framework& one : added) {
    const auto taken =
        std::ranges::find_if(frameworks, [&](const Framework& other) { return other.entry.name == one.entry.name; });
    if (taken == frameworks.end())
      frameworks.push_back(one);
    else
      mistakes.push_back({{.file = one.plugin},
                          "there is a framework '" + std::string{one.entry.name} + "' already, " +
                              (taken->plugin.empty() ? "built in" : "from " + taken->plugin)});
  }
  if (!mistakes.empty()) throw ScenarioError(std::move(mistakes));
  return frameworks;
}

}  // namespace trainyard::scenarios
