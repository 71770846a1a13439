// What the model types of a config.json have in common: fields, and what follows from them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "scenarios/internal/hf_fields.hpp"

namespace trainyard::scenarios::hf {

// Fields that most types share. Defaults are those of the configuration classes in huggingface/transformers,
// src/transformers/models/*/configuration_*.py.
constexpr HfField hidden{.name = "hidden_size", .key = "hidden", .required = true};
constexpr HfField layers{.name = "num_hidden_layers", .key = "layers", .required = true};
constexpr HfField heads{.name = "num_attention_heads", .key = "heads", .required = true};
constexpr HfField ffn_hidden{.name = "intermediate_size", .key = "ffn_hidden", .required = true};
constexpr HfField expert_hidden{.name = "moe_intermediate_size", .key = "ffn_hidden", .required = true};
constexpr HfField dense_hidden{.name = "intermediate_size", .key = "dense_ffn_hidden"};
constexpr HfField vocab{.name = "vocab_size", .key = "vocab", .required = true};
constexpr HfField kv_heads{.name = "num_key_value_heads", .key = "kv_heads", .null_is_none = true};  // else as heads
constexpr HfField head_dim{.name = "head_dim", .key = "head_dim", .null_is_none = true};  // else hidden / heads
constexpr HfField positions{.name = "max_position_embeddings", .key = "positions"};
constexpr HfField top_k{.name = "num_experts_per_tok", .key = "top_k", .synonyms = {"experts_per_token"}};
constexpr HfField experts{
    .name = "num_experts", .key = "experts", .synonyms = {"num_local_experts", "num_routed_experts"}};

constexpr HfField usual(HfField field, std::int64_t value) {
  field.usual = value;
  return field;
}
constexpr HfField required(HfField field) {
  field.required = true;
  return field;
}

// A switch of the file.
bool says(HfFile& file, std::string_view field, bool otherwise);
// Reports a switch that is on: "WHAT not supported".
void refuse(HfFile& file, std::string_view field, std::string_view what);

// A gate and an up projection, as in Llama; or one projection, as in GPT. Variants of GELU cost the same.
void set_gated_activation(HfFile& file);
void set_plain_activation(HfFile& file, std::string_view field, std::string_view otherwise);

struct Biases {
  bool qkv = false;
  bool output = false;
  bool ffn = false;
  bool norm = false;  // of a layernorm
};
void set_biases(HfFile& file, const Biases& biases);
// The largest of the fields: a model has one dropout for all places.
void set_dropout(HfFile& file, std::initializer_list<std::string_view> fields, double otherwise);
void set_tied(HfFile& file, bool otherwise);

// These check what was copied to the model.
void check_at_most(HfFile& file, const HfField& field, const HfField& limit);
void check_multiple(HfFile& file, const HfField& field, const HfField& divisor);
void check_heads(HfFile& file);

// Which layers look back through a window only; 0: none. `every`: see Model::full_attention_every; where the file lists
// the kind of each layer, that holds.
void set_window(HfFile& file, std::int64_t window, std::int64_t every = 0);
// The file's window; null is none.
std::int64_t window_or(HfFile& file, std::int64_t otherwise);
// Where it is switched on, for layers from `max_window_layers` on.
void set_qwen_window(HfFile& file);
// Every `decoder_sparse_step`-th layer has experts, but for those listed.
void set_expert_layers(HfFile& file);

}  // namespace trainyard::scenarios::hf
