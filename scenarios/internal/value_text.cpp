#include "scenarios/internal/value_text.hpp"

#include <yaml-cpp/emitter.h>
#include <yaml-cpp/emittermanip.h>

namespace trainyard::scenarios {
namespace {

template <class Json>
Json scalar_json(const Value& value) {
  if (value.quoted) return value.scalar;
  // What reads as a JSON number, true, false or null is that.
  Json parsed = Json::parse(value.scalar, nullptr, false);
  if (parsed.is_number() || parsed.is_boolean() || parsed.is_null()) return parsed;
  return value.scalar;
}

template <class Json>
Json to_json(const Value& value) {
  switch (value.kind) {
    case Value::Kind::null:
      return nullptr;
    case Value::Kind::scalar:
      return scalar_json<Json>(value);
    case Value::Kind::sequence: {
      Json items = Json::array();
      for (const Value& item : value.items) items.push_back(to_json<Json>(item));
      return items;
    }
    case Value::Kind::map: {
      Json entries = Json::object();
      for (const Entry& entry : value.entries) entries[entry.key.scalar] = to_json<Json>(entry.value);
      return entries;
    }
  }
  return nullptr;
}

void emit(YAML::Emitter& out, const Value& value) {
  switch (value.kind) {
    case Value::Kind::null:
      out << YAML::Null;
      break;
    case Value::Kind::scalar:
      if (value.quoted) out << YAML::DoubleQuoted;
      out << value.scalar;
      break;
    case Value::Kind::sequence:
      out << YAML::Flow << YAML::BeginSeq;
      for (const Value& item : value.items) emit(out, item);
      out << YAML::EndSeq;
      break;
    case Value::Kind::map:
      out << YAML::BeginMap;
      for (const Entry& entry : value.entries) {
        out << YAML::Key << entry.key.scalar << YAML::Value;
        emit(out, entry.value);
      }
      out << YAML::EndMap;
      break;
  }
}

}  // namespace

nlohmann::ordered_json json_of(const Value& value) { return to_json<nlohmann::ordered_json>(value); }

std::string canonical_text(const Value& value) {
  return to_json<nlohmann::json>(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string yaml_of(const Value& value) {
  YAML::Emitter out;
  emit(out, value);
  return std::string{out.c_str()} + "\n";
}

}  // namespace trainyard::scenarios
