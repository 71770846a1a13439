#include "scenarios/internal/reader.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace trainyard::scenarios {
namespace {

struct Example {
  bool overlap = false;
  std::int64_t tensor = 1;
  double ratio = 1.0;
  std::string label;
  sim::Choice schedule{.value = "1f1b", .choices = {"gpipe", "1f1b", "interleaved"}};
  sim::Bytes bucket{};
  sim::BytesPerSecond rate{};
  sim::Duration delay{};
  std::optional<std::int64_t> stage;
  std::optional<bool> fused;
  std::vector<std::int64_t> layers;

  std::vector<sim::Key> keys() {
    return {{.name = "overlap", .target = &overlap, .help = ""},
            {.name = "tensor", .target = &tensor, .help = "", .least = 1, .most = 64},
            {.name = "ratio", .target = &ratio, .help = "", .least = 0.5, .most = 2},
            {.name = "label", .target = &label, .help = ""},
            {.name = "schedule", .target = &schedule, .help = ""},
            {.name = "bucket", .target = &bucket, .help = ""},
            {.name = "rate", .target = &rate, .help = "", .least = 1},
            {.name = "delay", .target = &delay, .help = ""},
            {.name = "stage", .target = &stage, .help = ""},
            {.name = "fused", .target = &fused, .help = ""},
            {.name = "layers", .target = &layers, .help = ""}};
  }
};

std::string mistakes(const std::string& text, const Fields& fields) {
  Reader reader;
  try {
    reader.read(parse_yaml(text, "a.yaml"), "", fields);
    reader.throw_mistakes();
    return "";
  } catch (const ScenarioError& error) {
    return error.what();
  }
}

std::string mistakes(const std::string& text) {
  Example example;
  return mistakes(text, {.keys = example.keys()});
}

TEST(Reader, FillsTargetsOfEveryType) {
  Example example;
  Reader reader;
  reader.read(parse_yaml("overlap: true\ntensor: 8\nratio: 0.5\nlabel: '8'\nschedule: gpipe\nbucket: 25 MiB\n"
                         "rate: 400 Gbit/s\ndelay: 2 us\nstage: 1e3\nfused: false\nlayers: [1, 2]\n",
                         "a.yaml"),
              example.keys());
  EXPECT_EQ(reader.mistakes(), 0U);
  EXPECT_TRUE(example.overlap);
  EXPECT_EQ(example.tensor, 8);
  EXPECT_EQ(example.ratio, 0.5);
  EXPECT_EQ(example.label, "8");
  EXPECT_EQ(example.schedule.value, "gpipe");
  EXPECT_EQ(example.bucket, sim::Bytes{25 << 20U});
  EXPECT_EQ(example.rate, sim::BytesPerSecond{50'000'000'000});
  EXPECT_EQ(example.delay, sim::Duration{2'000'000});
  EXPECT_EQ(example.stage, 1000);
  EXPECT_EQ(example.fused, false);
  EXPECT_EQ(example.layers, (std::vector<std::int64_t>{1, 2}));
}

TEST(Reader, AbsentKeysKeepTheirDefaults) {
  Example example;
  Reader reader;
  reader.read(parse_yaml("{}", "a.yaml"), example.keys());
  EXPECT_EQ(example.tensor, 1);
  EXPECT_EQ(example.stage, std::nullopt);
}

TEST(Reader, AnUnknownKeyIsReportedWithTheNearestOne) {
  EXPECT_EQ(mistakes("tensr: 8"), "a.yaml:1:1: unknown key 'tensr' (did you mean 'tensor'?)");
  EXPECT_EQ(mistakes("zzz: 8"), "a.yaml:1:1: unknown key 'zzz'");
}

TEST(Reader, AKeyGivenTwiceIsReported) {
  EXPECT_EQ(mistakes("tensor: 8\ntensor: 4\n"), "a.yaml:2:1: key 'tensor' is given twice");
}

TEST(Reader, AMissingKeyIsReportedAtItsMap) {
  std::int64_t nodes = 0;
  const std::vector<sim::Key> keys{{.name = "nodes", .target = &nodes, .help = "", .required = true}};
  EXPECT_EQ(mistakes("{}", {.keys = keys}), "a.yaml:1:1: missing key 'nodes'");
}

TEST(Reader, WrongTypesSayWhatWasExpected) {
  EXPECT_EQ(mistakes("tensor: eight"), "a.yaml:1:9: tensor: expected a whole number, got 'eight'");
  EXPECT_EQ(mistakes("tensor: '8'"), "a.yaml:1:9: tensor: expected a whole number, got the text '8'");
  EXPECT_EQ(mistakes("tensor:"), "a.yaml:1:1: tensor: expected a whole number, got nothing");
  EXPECT_EQ(mistakes("overlap: yes"), "a.yaml:1:10: overlap: expected true or false, got 'yes'");
  EXPECT_EQ(mistakes("ratio: [1]"), "a.yaml:1:8: ratio: expected a number, got a list");
  EXPECT_EQ(mistakes("label: {a: 1}"), "a.yaml:1:8: label: expected text, got a map");
  EXPECT_EQ(mistakes("layers: 1"), "a.yaml:1:9: layers: expected a list such as [1, 2], got '1'");
  EXPECT_EQ(mistakes("rate: 400"), "a.yaml:1:7: rate: expected a size per second such as '400 Gbit/s', got '400'");
  EXPECT_EQ(mistakes("schedule: 1f1d"),
            "a.yaml:1:11: schedule: expected 'gpipe', '1f1b' or 'interleaved', got '1f1d' (did you mean '1f1b'?)");
}

TEST(Reader, BoundsHold) {
  EXPECT_EQ(mistakes("tensor: 0"), "a.yaml:1:9: tensor: expected at least 1, got '0'");
  EXPECT_EQ(mistakes("tensor: 65"), "a.yaml:1:9: tensor: expected at most 64, got '65'");
  EXPECT_EQ(mistakes("stage: -1"), "a.yaml:1:8: stage: expected at least 0, got '-1'");
  EXPECT_EQ(mistakes("rate: 0 B/s"), "a.yaml:1:7: rate: expected more than zero, got '0 B/s'");
}

TEST(Reader, BoundsOfQuantitiesAreWrittenInTheirUnits) {
  sim::BytesPerSecond rate;
  sim::Duration delay{};
  const std::vector<sim::Key> keys{
      {.name = "rate", .target = &rate, .help = "", .least = 1e6, .most = 1e12},
      {.name = "delay", .target = &delay, .help = "", .most = 1e12},
  };
  EXPECT_EQ(mistakes("rate: 1 B/s", {.keys = keys}),
            "a.yaml:1:7: rate: expected between 1 MB/s and 1 TB/s, got '1 B/s'");
  EXPECT_EQ(mistakes("rate: 2 TB/s", {.keys = keys}),
            "a.yaml:1:7: rate: expected between 1 MB/s and 1 TB/s, got '2 TB/s'");
  EXPECT_EQ(mistakes("delay: 2 s", {.keys = keys}), "a.yaml:1:8: delay: expected between 0 s and 1 s, got '2 s'");
  EXPECT_EQ(mistakes("{rate: 1 MB/s, delay: 1 s}", {.keys = keys}), "");
}

TEST(Reader, OfAPartialMapNothingIsMissing) {
  std::int64_t count = 0;
  const std::vector<sim::Key> keys{{.name = "count", .target = &count, .help = "", .required = true}};
  Value map = parse_yaml("{cuont: 1}", "a.yaml");
  make_partial(map);
  Reader reader;
  reader.read(map, keys);
  EXPECT_EQ(reader.mistakes(), 1U);
}

TEST(Reader, AllMistakesComeAtOnceInTheOrderOfTheirLines) {
  EXPECT_EQ(mistakes("tensor: x\noverlap: 1\nfoo_bar_baz: 1\n"),
            "a.yaml:1:9: tensor: expected a whole number, got 'x'\n"
            "a.yaml:2:10: overlap: expected true or false, got '1'\n"
            "a.yaml:3:1: unknown key 'foo_bar_baz'");
}

TEST(Reader, WhatComesLaterIsNamed) {
  Example example;
  const std::vector<sim::Key> keys = example.keys();
  const std::array<Later, 2> later{{{"schedule", "dualpipe"}, {"offload"}}};
  EXPECT_EQ(mistakes("schedule: dualpipe\noffload: 1\n", {.keys = keys, .later = later}),
            "a.yaml:1:11: schedule: 'dualpipe' is not supported yet; choose 'gpipe', '1f1b' or 'interleaved'\n"
            "a.yaml:2:1: 'offload' is not supported yet");
}

TEST(Reader, InFilesOfOtherToolsOtherKeysDoNotMatterAndNullIsAbsence) {
  Example example;
  EXPECT_EQ(mistakes("{tensor: null, torch_dtype: bfloat16}", {.keys = example.keys(), .foreign = true}), "");
}

TEST(Reader, SectionsAreHandedOn) {
  const Value* strategy = nullptr;
  const std::array<Section, 1> sections{{{"strategy", &strategy, true}}};
  const Value root = parse_yaml("strategy: {tensor: x}", "a.yaml");
  Reader reader;
  reader.read(root, "", {.sections = sections});
  ASSERT_NE(strategy, nullptr);
  Example example;
  reader.read(*strategy, "strategy", {.keys = example.keys()});
  try {
    reader.throw_mistakes();
    FAIL();
  } catch (const ScenarioError& error) {
    EXPECT_STREQ(error.what(), "a.yaml:1:20: strategy.tensor: expected a whole number, got 'x'");
  }
}

TEST(Reader, ARelationIsReportedAtTheNearestKeyThatWasGiven) {
  const Value* strategy = nullptr;
  const std::array<Section, 1> sections{{{"strategy", &strategy}}};
  const Value root = parse_yaml("strategy:\n  tensor: 3\n", "a.yaml");
  Reader reader;
  reader.read(root, "", {.sections = sections});
  Example example;
  reader.read(*strategy, "strategy", {.keys = example.keys()});
  EXPECT_TRUE(reader.given("strategy.tensor"));
  EXPECT_EQ(reader.location_of("strategy.tensor"), (Location{"a.yaml", 2, 11}));
  EXPECT_EQ(reader.location_of("strategy.pipeline"), (Location{"a.yaml", 1, 1}));
  EXPECT_EQ(reader.location_of("training.micro_batch"), (Location{"a.yaml", 1, 1}));
}

TEST(Diagnostics, AreSortedAndEachIsSaidOnce) {
  const ScenarioError error{{{{"a.yaml", 2, 1}, "two"}, {{"a.yaml", 1, 1}, "one"}, {{"a.yaml", 2, 1}, "two"}}};
  EXPECT_STREQ(error.what(), "a.yaml:1:1: one\na.yaml:2:1: two");
  EXPECT_EQ(error.diagnostics().size(), 2U);
}

TEST(Diagnostics, ControlCharactersAreWrittenOut) {
  EXPECT_EQ(printable("a\x1b[31mb\x7f\n"), "a\\x1b[31mb\\x7f\\x0a");
  EXPECT_EQ(printable("\xc2\x9b"
                      "1m \xc3\xa9"),
            "\\xc2\\x9b1m \xc3\xa9");
  const ScenarioError error{{"a.yaml", 1, 1}, "unknown key '\x1b[2J'"};
  EXPECT_STREQ(error.what(), "a.yaml:1:1: unknown key '\\x1b[2J'");
}

TEST(Diagnostics, ANameWithinAnotherIsNear) {
  const std::vector<std::string_view> names{"pytorch-ddp", "pytorch-fsdp", "megatron-lm", "grand-teton-h100",
                                            "dgx-h100"};
  EXPECT_EQ(nearest("megatron", names), " (did you mean 'megatron-lm'?)");
  EXPECT_EQ(nearest("FSDP", names), " (did you mean 'pytorch-fsdp'?)");
  EXPECT_EQ(nearest("h100", names), " (did you mean 'dgx-h100'?)");
  EXPECT_EQ(nearest("my-megatron-lm-fork", names), " (did you mean 'megatron-lm'?)");
  EXPECT_EQ(nearest("ddp", names), "");
}

TEST(Diagnostics, TheNearestNameIsFoundWhateverItsCase) {
  const std::vector<std::string_view> names{"llama3-8b", "llama2-7b", "gpt2"};
  EXPECT_EQ(nearest("Llama3_8B", names), " (did you mean 'llama3-8b'?)");
  EXPECT_EQ(nearest("resnet", names), "");
  EXPECT_EQ(nearest("xy", std::vector<std::string_view>{"ab"}), "");
  EXPECT_EQ(listed(names), "'llama3-8b', 'llama2-7b' or 'gpt2'");
}

}  // namespace
}  // namespace trainyard::scenarios
