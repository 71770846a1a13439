#include "strategies/ddp_buckets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "tests/support/models.hpp"
#include "workloads/architecture.hpp"

namespace trainyard::strategies {
namespace {

using sim::Bytes;

constexpr Bytes mebibyte{1 << 20};
constexpr Bytes cap{25 << 20};

Bytes sum_of(const std::vector<Bytes>& sizes) { return std::accumulate(sizes.begin(), sizes.end(), Bytes{}); }

std::vector<Bytes> reversed_gradients(const workloads::Model& model) {
  std::vector<Bytes> tensors;
  for (const std::int64_t elements : workloads::parameter_tensors(model)) tensors.push_back({elements * 4});
  std::ranges::reverse(tensors);
  return tensors;
}

// torchvision's ResNet-50 in the order of registration, 32-bit gradients.
std::vector<Bytes> resnet50() {
  std::vector<Bytes> tensors;
  const auto convolution = [&](std::int64_t in, std::int64_t out, std::int64_t kernel) {
    tensors.push_back({4 * in * out * kernel * kernel});
    tensors.insert(tensors.end(), 2, Bytes{4 * out});  // weight and bias of the batch norm behind it
  };
  convolution(3, 64, 7);
  std::int64_t channels = 64;
  std::int64_t width = 64;
  for (const int blocks : {3, 4, 6, 3}) {
    for (int block = 0; block < blocks; ++block) {
      convolution(channels, width, 1);
      convolution(width, width, 3);
      convolution(width, 4 * width, 1);
      if (block == 0) convolution(channels, 4 * width, 1);  // the shortcut
      channels = 4 * width;
    }
    width *= 2;
  }
  tensors.push_back({4 * 2048 * 1000});
  tensors.push_back({4 * 1000});
  return tensors;
}

TEST(DdpBuckets, OfResNet50AreTheOnesOfPyTorch) {
  std::vector<Bytes> tensors = resnet50();
  ASSERT_EQ(tensors.size(), 161U);
  ASSERT_EQ(sum_of(tensors).count, 4 * 25'557'032);
  std::ranges::reverse(tensors);
  const std::vector<Bytes> buckets = ddp_buckets(tensors, mebibyte, cap);
  const std::array<double, 5> megabytes{8.20, 31.50, 26.26, 26.55, 9.72};
  ASSERT_EQ(buckets.size(), megabytes.size());
  for (std::size_t i = 0; i < buckets.size(); ++i)
    EXPECT_NEAR(static_cast<double>(buckets[i].count) * 1e-6, megabytes.at(i), 0.005) << i;
}

TEST(DdpBuckets, OfTheModelsTensorsAreTheSame) {
  std::vector<Bytes> tensors = resnet50();
  std::ranges::reverse(tensors);
  EXPECT_EQ(reversed_gradients(tests::resnet50()), tensors);
}

TEST(DdpBuckets, CloseWhenTheyHaveReachedTheirLimit) {
  const std::vector<Bytes> tensors{{3}, {1}, {5}, {10}, {4}, {6}, {2}};
  // 3 + 1 reaches 4; 5 + 10 goes beyond 10; 4 + 6 is 10; the rest stays below.
  EXPECT_EQ(ddp_buckets(tensors, Bytes{4}, Bytes{10}), (std::vector<Bytes>{{4}, {15}, {10}, {2}}));
  EXPECT_EQ(ddp_buckets(tensors, Bytes{100}, Bytes{10}), (std::vector<Bytes>{{31}}));
  EXPECT_TRUE(ddp_buckets({}, Bytes{4}, Bytes{10}).empty());
}

TEST(DdpBuckets, OfAGptFillInTheOrderGivenAndHoldEverything) {
  const std::vector<Bytes> tensors = reversed_gradients(tests::gpt2());
  const std::vector<Bytes> buckets = ddp_buckets(tensors, mebibyte, cap);
  EXPECT_EQ(sum_of(buckets).count, 4 * 124'439'808);
  EXPECT_GE(buckets.front(), mebibyte);
  EXPECT_LT(buckets.front(), cap);
  for (std::size_t i = 1; i + 1 < buckets.size(); ++i) EXPECT_GE(buckets[i], cap) << i;
  // Every bucket is a run of tensors, and would be below its limit without the last of them.
  std::size_t tensor = 0;
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    Bytes filled{};
    Bytes last{};
    while (filled < buckets[i] && tensor < tensors.size()) {
      last = tensors[tensor++];
      filled += last;
    }
    EXPECT_EQ(filled, buckets[i]) << i;
    EXPECT_LT(filled - last, i == 0 ? mebibyte : cap) << i;
  }
  EXPECT_EQ(tensor, tensors.size());
}

TEST(DdpBuckets, ATensorAboveTheLimitOverflowsItsBucket) {
  // The embedding of GPT-2 is 154 MB, the last gradient to be ready.
  const std::vector<Bytes> buckets = ddp_buckets(reversed_gradients(tests::gpt2()), mebibyte, cap);
  EXPECT_GT(buckets.back().count, 4LL * 50257 * 768);
}

}  // namespace
}  // namespace trainyard::strategies
