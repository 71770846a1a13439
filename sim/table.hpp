// A vector that only its own kind of id can index.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "sim/ensure.hpp"

namespace trainyard::sim {

template <class Id>
constexpr std::size_t index_of(Id id) {
  return static_cast<std::size_t>(static_cast<std::underlying_type_t<Id>>(id));
}

template <class Id, class Value>
class Table {
 public:
  Table() = default;
  explicit Table(std::size_t count, const Value& value = Value{}) : values_(count, value) {}

  Id add(Value value) {
    values_.push_back(std::move(value));
    return static_cast<Id>(values_.size() - 1);
  }
  Value& operator[](Id id) { return values_[index_of(id)]; }
  const Value& operator[](Id id) const { return values_[index_of(id)]; }
  Value& at(Id id) {
    ensure(index_of(id) < values_.size(), "an id is in its table");
    return values_[index_of(id)];
  }
  const Value& at(Id id) const {
    ensure(index_of(id) < values_.size(), "an id is in its table");
    return values_[index_of(id)];
  }

  std::size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  Id id(std::size_t index) const { return static_cast<Id>(index); }
  auto begin() { return values_.begin(); }
  auto end() { return values_.end(); }
  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }

 private:
  std::vector<Value> values_;
};

}  // namespace trainyard::sim
