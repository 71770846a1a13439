#include "scenarios/internal/hf_fields.hpp"

#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

constexpr double most_number = 1e9;  // beyond any dimension; products of two still fit 64 bits
constexpr double most_share = 0.99;

}  // namespace

const Value* HfFile::find(std::string_view field) const {
  const Value* value = config_.find(field);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool HfFile::is_null(std::string_view field) const {
  const Value* value = config_.find(field);
  return value != nullptr && value->is_null();
}

template <class T>
std::optional<T> HfFile::read(std::string_view field, double least, double most) {
  T value{};
  if (find(field) == nullptr) return std::nullopt;
  const std::array<sim::Key, 1> keys{
      {{.name = field, .target = &value, .help = "", .required = false, .least = least, .most = most}}};
  const std::size_t before = reader_.mistakes();
  reader_.read(config_, "", {.keys = keys, .foreign = true});
  if (reader_.mistakes() > before) return std::nullopt;
  return value;
}

std::optional<std::int64_t> HfFile::whole(std::string_view field, std::int64_t least) {
  return read<std::int64_t>(field, static_cast<double>(least), most_number);
}

std::optional<double> HfFile::share(std::string_view field) { return read<double>(field, 0, most_share); }

std::optional<bool> HfFile::flag(std::string_view field) { return read<bool>(field, 0, 1); }

std::optional<std::string> HfFile::text(std::string_view field) { return read<std::string>(field, 0, 1); }

std::optional<std::vector<std::int64_t>> HfFile::wholes(std::string_view field) {
  return read<std::vector<std::int64_t>>(field, 0, most_number);
}

const std::vector<Value>* HfFile::list(std::string_view field) {
  const Value* value = find(field);
  if (value == nullptr) return nullptr;
  if (value->is_sequence()) return &value->items;
  report(field, "expected a list, got " + describe(*value));
  return nullptr;
}

std::int64_t HfFile::size_of_map(std::string_view field) {
  const Value* value = find(field);
  if (value == nullptr) return 0;
  if (!value->is_map()) report(field, "expected a map, got " + describe(*value));
  return static_cast<std::int64_t>(value->entries.size());
}

std::string_view HfFile::name_of(const HfField& field) const {
  if (find(field.name) != nullptr) return field.name;
  for (const std::string_view synonym : field.synonyms)
    if (!synonym.empty() && find(synonym) != nullptr) return synonym;
  return field.name;
}

std::optional<std::int64_t> HfFile::number(const HfField& field) {
  const std::string_view name = name_of(field);
  const Value* value = find(name);
  if (value == nullptr) {
    if (field.required) reader_.report(config_.where, "missing key '" + std::string{field.name} + "'");
    return field.null_is_none && is_null(field.name) ? std::nullopt : field.usual;
  }
  for (const std::string_view synonym : field.synonyms) {
    const Value* other = synonym.empty() ? nullptr : find(synonym);
    if (other != nullptr && other->scalar != value->scalar)
      report(synonym, describe(*other) + " contradicts " + std::string{name} + ", which is " + describe(*value));
  }
  return whole(name, field.least);
}

void HfFile::copy(std::span<const HfField> fields) {
  for (const HfField& field : fields) {
    const std::optional<std::int64_t> value = number(field);
    const Value* given = find(name_of(field));
    if (value && given != nullptr)
      scenarios::set(model_, field.key, *given);
    else if (value)
      set_number(field.key, *value);
  }
}

void HfFile::set(std::string_view key, std::string text, std::string_view field) {
  scenarios::set(model_, key, make_scalar(std::move(text), place_of(field)));
}

void HfFile::set_numbers(std::string_view key, const std::vector<std::int64_t>& values) {
  Value list;
  list.kind = Value::Kind::sequence;
  list.where = config_.where;
  for (const std::int64_t value : values) list.items.push_back(make_scalar(std::to_string(value), config_.where));
  scenarios::set(model_, key, std::move(list));
}

std::optional<std::int64_t> HfFile::model_number(std::string_view key) const {
  const Value* value = model_.find(key);
  return value == nullptr ? std::nullopt : parse_whole_number(value->scalar).value;
}

Location HfFile::place_of(std::string_view field) const {
  const Value* value = config_.find(field);
  return value == nullptr ? config_.where : value->where;
}

void HfFile::report(std::string_view field, const std::string& message) {
  reader_.report(place_of(field), std::string{field} + ": " + message);
}

}  // namespace trainyard::scenarios
