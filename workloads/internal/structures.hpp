// The operations of each structure of models.
#pragma once

#include <cstdint>

#include "workloads/architecture.hpp"

namespace trainyard::workloads {

// Of tokens: `sequence` of them, of a vocabulary of `vocab`.
void describe_decoder(const Model& model, std::int64_t sequence, std::int64_t vocab, Architecture& result);
void describe_encoder(const Model& model, std::int64_t sequence, std::int64_t vocab, Architecture& result);
void describe_encoder_decoder(const Model& model, std::int64_t sequence, std::int64_t vocab, Architecture& result);

// Of images.
void describe_vision(const Model& model, Architecture& result);
void describe_convolution(const Model& model, Architecture& result);

// Of rows of tables.
void describe_recommendation(const Model& model, Architecture& result);

}  // namespace trainyard::workloads
