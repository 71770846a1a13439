#include <array>

#include "strategies/internal/colossal.hpp"
#include "strategies/internal/deepspeed.hpp"
#include "strategies/internal/maxtext.hpp"
#include "strategies/internal/megatron.hpp"
#include "strategies/internal/pytorch_ddp.hpp"
#include "strategies/internal/pytorch_fsdp.hpp"
#include "strategies/internal/tensorflow.hpp"
#include "strategies/strategy.hpp"

namespace trainyard::strategies {
namespace {

template <class Kind>
std::unique_ptr<Strategy> make() {
  return std::make_unique<Kind>();
}

constexpr std::array entries{
    StrategyEntry{"pytorch-ddp", "replicated parameters, bucketed all-reduce overlapped with backward",
                  &make<PytorchDdp>},
    StrategyEntry{"pytorch-fsdp", "parameters sharded per block, gathered when used, gradients reduce-scattered",
                  &make<PytorchFsdp>},
    StrategyEntry{"deepspeed",
                  "ZeRO: state divided over ranks, on devices or hosts; pipeline, tensor and sequence parallelism",
                  &make<Deepspeed>},
    StrategyEntry{"megatron-lm",
                  "tensor, sequence, context, expert, pipeline and data parallelism, distributed optimizer",
                  &make<MegatronLm>},
    StrategyEntry{"colossal-ai",
                  "tensor parallelism in one to three dimensions; Gemini: chunks on devices and hosts; LowLevelZero",
                  &make<ColossalAi>},
    StrategyEntry{"maxtext", "one XLA program that GSPMD divides over the axes of a mesh of TPUs or GPUs",
                  &make<MaxText>},
    StrategyEntry{"tensorflow", "variables mirrored on replicas, kept on the host, or on parameter servers",
                  &make<Tensorflow>},
    StrategyEntry{"keras", "TensorFlow's strategies under fit(), and Keras' own data and model parallelism",
                  &make<Keras>},
};

}  // namespace

std::span<const StrategyEntry> catalog() { return entries; }

}  // namespace trainyard::strategies
