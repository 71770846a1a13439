#include "scenarios/show_frameworks.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace trainyard::scenarios {
namespace {

// A framework with an option of every kind.
class Everything final : public strategies::Strategy {
 public:
  std::vector<sim::Key> keys() override {
    return {{.name = "ranks", .target = &ranks_, .help = "ranks that share a layer", .least = 1, .most = 1e6},
            {.name = "bucket", .target = &parameters_, .help = "parameters in a bucket"},
            {.name = "stages", .target = &stages_, .help = "stages of the pipeline", .least = 1},
            {.name = "momentum", .target = &momentum_, .help = "share that is kept", .most = 1},
            {.name = "overlap", .target = &overlap_, .help = "beside compute"},
            {.name = "fused", .target = &fused_, .help = "in one kernel; absent: where it can be"},
            {.name = "schedule", .target = &schedule_, .help = "order of passes"},
            {.name = "layout", .target = &layout_, .help = "axes of the mesh"},
            {.name = "cap", .target = &cap_, .help = "gradients in a bucket"},
            {.name = "wan", .target = &wan_, .help = "between sites"},
            {.name = "delay", .target = &delay_, .help = "of the outer step"},
            {.name = "layers", .target = &layers_, .help = "layers of each stage"},
            {.name = "sites", .target = &sites_, .help = "clusters that take part", .required = true}};
  }
  std::vector<strategies::Problem> check(const strategies::Job& /*job*/) const override { return {}; }
  std::vector<std::string> warnings(const strategies::Job& /*job*/) const override { return {}; }
  strategies::PlannedStep plan(const strategies::Job& /*job*/) const override { return {}; }

 private:
  std::int64_t ranks_ = 8;
  std::int64_t parameters_ = 40'000'000;
  std::optional<std::int64_t> stages_;
  double momentum_ = 0.9;
  bool overlap_ = true;
  std::optional<bool> fused_;
  sim::Choice schedule_{"1f1b", {"gpipe", "1f1b"}};
  std::string layout_ = "tp-dp";
  sim::Bytes cap_{25 << 20U};
  sim::BytesPerSecond wan_{1'250'000'000};
  sim::Duration delay_ = std::chrono::milliseconds{5};
  std::vector<std::int64_t> layers_;
  std::int64_t sites_ = 0;
};

std::unique_ptr<strategies::Strategy> make_everything() { return std::make_unique<Everything>(); }

TEST(ShowFrameworks, EveryOptionHasItsDefaultWhatItTakesAndItsMeaning) {
  const Catalog catalog({}, {{.entry = {"everything", "all kinds of options", make_everything}}});
  EXPECT_EQ(show_framework(catalog, "everything"),
            "everything: all kinds of options\n"
            "\n"
            "option    default    takes                       meaning\n"
            "ranks     8          whole number, 1 to 1000000  ranks that share a layer\n"
            "bucket    40000000   whole number                parameters in a bucket\n"
            "stages    absent     whole number from 1         stages of the pipeline\n"
            "momentum  0.9        number, 0 to 1              share that is kept\n"
            "overlap   true       true or false               beside compute\n"
            "fused     absent     true or false               in one kernel; absent: where it can be\n"
            "schedule  1f1b       one of these                order of passes: 'gpipe' or '1f1b'\n"
            "layout    tp-dp      text                        axes of the mesh\n"
            "cap       25 MiB     size, such as 25 MiB        gradients in a bucket\n"
            "wan       1.25 GB/s  rate, such as 25 GB/s       between sites\n"
            "delay     5 ms       time, such as 2 us          of the outer step\n"
            "layers    absent     list, such as [1, 2]        layers of each stage\n"
            "sites     required   whole number                clusters that take part\n");
}

TEST(ShowFrameworks, ThoseFromPluginsAreNamedWithTheirLibrary) {
  const Catalog catalog({}, {{.entry = {"everything", "all kinds", make_everything}},
                             {.entry = {"mine", "one of my own", make_everything}, .plugin = "lib/mine.so"}});
  EXPECT_EQ(show_frameworks(catalog), "everything  all kinds\nmine        one of my own (lib/mine.so)\n");
}

TEST(ShowFrameworks, EveryBuiltInOptionHasAMeaning) {
  const Catalog catalog;
  for (const Framework& framework : catalog.frameworks())
    for (const sim::Key& key : framework.make()->keys())
      EXPECT_FALSE(key.help.empty()) << framework.entry.name << " " << key.name;
}

}  // namespace
}  // namespace trainyard::scenarios
