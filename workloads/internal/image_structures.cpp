// Transformers over patches of images, and convolutions.
#include <string>

#include "workloads/internal/operation_writer.hpp"
#include "workloads/internal/structures.hpp"

namespace trainyard::workloads {
namespace {

// A convolution and its norm, as ResNet has them throughout.
void add_convolution(OperationWriter& block, const std::string& name, const ConvolutionWork& work, bool relu,
                     bool addition) {
  block.add(name, work);
  block.add(name + " norm",
            BatchNormWork{.channels = work.out_channels, .size = work.size, .relu = relu, .addition = addition});
}

}  // namespace

void describe_vision(const Model& model, Architecture& result) {
  result.causal = false;
  const std::int64_t side = model.image_size / model.patch_size;
  const std::int64_t tokens = side * side + 1;  // and the class token
  OperationWriter embedding(model, "patch embedding", tokens);
  embedding.add("patches", ConvolutionWork{.in_channels = model.channels,
                                           .out_channels = model.hidden,
                                           .kernel = model.patch_size,
                                           .in_size = model.image_size,
                                           .size = side,
                                           .bias = true});
  embedding.add("positions", LookupWork{.width = model.hidden, .added = {tokens, 1}});
  result.embedding = embedding.take();
  LayerList layers(result);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    layers.add(0, [&] {
      OperationWriter block(model, "layer", tokens);
      block.transformer_layer(false, 0, false);
      return block.take();
    });
  }
  OperationWriter head(model, "head", tokens);
  head.norm("final norm");
  head.linear("classifier", model.hidden, {{"classifier", model.classes}}, true, Split::none).token_count = 1;
  head.add("loss", LossWork{.classes = model.classes, .token_count = 1});
  result.head = head.take();
}

// ResNet with bottleneck blocks (arXiv 1512.03385, table 1; the stride is in the 3x3 convolution, as in torchvision).
void describe_convolution(const Model& model, Architecture& result) {
  result.causal = false;
  const auto half = [](std::int64_t size) { return (size + 1) / 2; };
  std::int64_t size = half(model.image_size);
  OperationWriter stem(model, "stem", 1);
  add_convolution(stem, "convolution 1",
                  {.in_channels = model.channels,
                   .out_channels = model.width,
                   .kernel = 7,
                   .in_size = model.image_size,
                   .size = size},
                  true, false);
  const std::int64_t pooled = half(size);
  // Its input stays for the ReLU before it, and where each result came from.
  stem.add("max pool", PassWork{.read = model.width * size * size,
                                .written = model.width * pooled * pooled,
                                .kept = model.width * (size * size + pooled * pooled)});
  result.embedding = stem.take();
  result.embedding.width = model.width * pooled * pooled;
  size = pooled;
  std::int64_t channels = model.width;
  LayerList layers(result);
  for (std::size_t stage = 0; stage < model.stage_blocks.size(); ++stage) {
    const std::int64_t inner = model.width << stage;
    const std::int64_t outer = 4 * inner;
    for (std::int64_t i = 0; i < model.stage_blocks[stage]; ++i) {
      const bool first = i == 0;
      const std::int64_t in_size = size;
      if (first && stage > 0) size = half(size);
      layers.add(static_cast<std::int64_t>(2 * stage) + (first ? 1 : 0), [&] {
        OperationWriter block(model, "block of stage " + std::to_string(stage + 1) + (first ? ", first" : ""), 1);
        add_convolution(block, "reduce",
                        {.in_channels = channels, .out_channels = inner, .in_size = in_size, .size = in_size}, true,
                        false);
        add_convolution(block, "convolve",
                        {.in_channels = inner, .out_channels = inner, .kernel = 3, .in_size = in_size, .size = size},
                        true, false);
        add_convolution(block, "expand", {.in_channels = inner, .out_channels = outer, .in_size = size, .size = size},
                        true, true);
        if (first)
          add_convolution(
              block, "shortcut",
              {.in_channels = channels, .out_channels = outer, .in_size = in_size, .size = size, .keeps_input = false},
              false, false);
        Block result_block = block.take();
        result_block.width = outer * size * size;
        return result_block;
      });
      channels = outer;
    }
  }
  OperationWriter head(model, "head", 1);
  // Its input stays for the ReLU of the last block.
  head.add("average pool",
           PassWork{.read = channels * size * size, .written = channels, .kept = channels * size * size});
  head.linear("classifier", channels, {{"classifier", model.classes}}, true, Split::none);
  head.add("loss", LossWork{.classes = model.classes});
  result.head = head.take();
}

}  // namespace trainyard::workloads
