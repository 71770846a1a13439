#include "scenarios/internal/scenario_hash.hpp"

#include <elf.h>
#include <link.h>

#include <array>
#include <boost/uuid/name_generator_sha1.hpp>
#include <boost/uuid/uuid.hpp>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/value_text.hpp"

namespace trainyard::scenarios {
namespace {

std::string hexadecimal(const unsigned char* bytes, std::size_t size) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < size; ++i) {
    text += digits[bytes[i] >> 4U];
    text += digits[bytes[i] & 15U];
  }
  return text;
}

std::string file_hash(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  return hash_of(content);
}

// The build id among the notes of a loaded segment, as `ld --build-id` writes it.
std::string build_id_in(const unsigned char* notes, std::size_t size) {
  constexpr std::size_t alignment = 4;
  const auto aligned = [](std::size_t n) { return (n + alignment - 1) / alignment * alignment; };
  while (size >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    std::memcpy(&header, notes, sizeof header);
    const std::size_t name = sizeof header;
    const std::size_t description = name + aligned(header.n_namesz);
    const std::size_t next = description + aligned(header.n_descsz);
    if (next > size) break;
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == sizeof ELF_NOTE_GNU &&
        std::memcmp(notes + name, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0)
      return hexadecimal(notes + description, header.n_descsz);
    notes += next;
    size -= next;
  }
  return {};
}

int find_build_id(dl_phdr_info* object, std::size_t /*size*/, void* found) {
  for (std::size_t i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto* notes = reinterpret_cast<const unsigned char*>(object->dlpi_addr + segment.p_vaddr);
    std::string id = build_id_in(notes, segment.p_memsz);
    if (id.empty()) continue;
    *static_cast<std::string*>(found) = std::move(id);
    break;
  }
  return 1;  // the first object is the program, and the only one asked
}

}  // namespace

std::string hash_of(std::string_view text) {
  // Any fixed namespace does: hashes are compared with each other only.
  constexpr boost::uuids::uuid own_namespace{
      {0x74, 0x72, 0x61, 0x69, 0x6e, 0x79, 0x61, 0x72, 0x64, 0x2e, 0x70, 0x6f, 0x69, 0x6e, 0x74, 0x73}};
  const boost::uuids::uuid hash = boost::uuids::name_generator_sha1(own_namespace)(text.data(), text.size());
  return hexadecimal(hash.begin(), hash.size());
}

std::string program_build() {
  std::string id;
  dl_iterate_phdr(find_build_id, &id);
  return id;
}

ScenarioHash::ScenarioHash(const Catalog& catalog, std::string_view program) : catalog_(catalog), program_(program) {
  for (const Framework& framework : catalog.frameworks())
    if (!framework.plugin.empty()) plugins_[std::string{framework.entry.name}] = file_hash(framework.plugin);
}

// All entries of a name: one of a folder may refine the built-in one that it hides.
void ScenarioHash::add_names(const Value& value, std::set<const CatalogEntry*>& entries) const {
  for (const Entry& entry : value.entries) add_names(entry.value, entries);
  for (const Value& item : value.items) add_names(item, entries);
  if (!value.is_scalar()) return;
  for (std::size_t kind = 0; kind < entry_kinds.size(); ++kind)
    for (const CatalogEntry* entry = catalog_.find(static_cast<EntryKind>(kind), value.scalar); entry != nullptr;
         entry = catalog_.find(static_cast<EntryKind>(kind), value.scalar, entry))
      if (entries.insert(entry).second) add_names(catalog_.parsed(*entry), entries);
}

// Where the file is missing, reading the scenario says so.
void ScenarioHash::add_files(const Value& value, std::string& text) const {
  for (const Entry& entry : value.entries) {
    if (entry.key.scalar == "hf_config" && entry.value.is_scalar()) {
      std::filesystem::path path = entry.value.scalar;
      if (entry.value.where.line > 0) path = std::filesystem::path{entry.value.where.file}.parent_path() / path;
      text += file_hash(path);
    }
    if (entry.key.scalar == "framework" && entry.value.is_scalar())
      if (const auto plugin = plugins_.find(entry.value.scalar); plugin != plugins_.end()) text += plugin->second;
    add_files(entry.value, text);
  }
}

std::string ScenarioHash::entry_hash(const CatalogEntry& entry) {
  {
    const std::lock_guard lock(mutex_);
    const auto known = entry_hashes_.find(&entry);
    if (known != entry_hashes_.end()) return known->second;
  }
  std::string hash = hash_of(entry.name + canonical_text(catalog_.parsed(entry)));
  const std::lock_guard lock(mutex_);
  return entry_hashes_[&entry] = std::move(hash);
}

std::string ScenarioHash::of(const Value& scenario) {
  std::set<const CatalogEntry*> entries;
  add_names(scenario, entries);
  std::set<std::string> hashes;  // sorted, so that it does not matter where entries lie
  for (const CatalogEntry* entry : entries) hashes.insert(entry_hash(*entry));
  std::string text = program_ + canonical_text(scenario);
  for (const std::string& hash : hashes) text += hash;
  add_files(scenario, text);
  return hash_of(text);
}

}  // namespace trainyard::scenarios
