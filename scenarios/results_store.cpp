#include "scenarios/results_store.hpp"

#include <sqlite3.h>

#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "scenarios/diagnostics.hpp"
#include "scenarios/internal/result_fields.hpp"
#include "scenarios/outside_failure.hpp"

namespace trainyard::scenarios {
namespace {

constexpr int application = 0x54726e79;  // "Trny": what `file` and this program know a store by
constexpr int schema = 1;
constexpr int patience_ms = 5000;  // with another program's transaction; ours take milliseconds

constexpr std::array<std::string_view, 9> own_columns{"sweep",  "position",    "parameters",    "hash",       "program",
                                                      "status", "diagnostics", "scenario_yaml", "result_json"};

std::string identifier(std::string_view name) { return "\"" + std::string{name} + "\""; }

// Finalised when it goes.
class Statement {
 public:
  Statement(sqlite3* database, const std::filesystem::path& path, std::string_view sql)
      : database_(database), path_(path) {
    check(sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr));
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  void bind(int place, std::string_view text) {
    check(sqlite3_bind_text(statement_, place, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT));
  }
  void bind(int place, double number) { check(sqlite3_bind_double(statement_, place, number)); }
  void bind(int place, std::int64_t number) { check(sqlite3_bind_int64(statement_, place, number)); }
  void bind_nothing(int place) { check(sqlite3_bind_null(statement_, place)); }

  // Whether there is a row.
  bool step() {
    const int status = sqlite3_step(statement_);
    if (status == SQLITE_ROW) return true;
    if (status != SQLITE_DONE) check(status);
    return false;
  }
  void run() {
    while (step()) continue;
    check(sqlite3_reset(statement_));
  }
  std::string text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text == nullptr ? std::string{}
                           : std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }
  std::int64_t number(int column) const { return sqlite3_column_int64(statement_, column); }

 private:
  void check(int status) const;

  sqlite3* database_;
  const std::filesystem::path& path_;
  sqlite3_stmt* statement_ = nullptr;
};

[[noreturn]] void fail(sqlite3* database, const std::filesystem::path& path, int status) {
  const std::string name = "the results store '" + path.string() + "'";
  switch (status & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      throw ScenarioError({path.string(), 0, 0}, "expected a results store, and this is none");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw StoreLocked(name + " is locked by another program");
    case SQLITE_FULL:
      throw OutsideFailure(name + " cannot grow: the disk is full");
    case SQLITE_IOERR:
      throw OutsideFailure(name + " cannot be written: the disk is full or a file may not grow");
    default:
      throw OutsideFailure(name + " cannot be used: " + sqlite3_errmsg(database));
  }
}

void Statement::check(int status) const {
  if (status != SQLITE_OK) fail(database_, path_, sqlite3_extended_errcode(database_));
}

}  // namespace

class ResultsStore::Connection {
 public:
  Connection(const std::filesystem::path& path, Access access) : path_(path) {
    const int status = sqlite3_open_v2(path.c_str(), &database_,
                                       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
    if (status != SQLITE_OK) {
      const std::string why = sqlite3_errmsg(database_);
      sqlite3_close(database_);
      throw OutsideFailure("the results store '" + path.string() + "' cannot be opened: " + why);
    }
    sqlite3_busy_timeout(database_, patience_ms);
    // Without the shared memory of readers and writers, which network file systems do not have
    if (access == Access::alone) execute("PRAGMA locking_mode = EXCLUSIVE");
  }
  ~Connection() { sqlite3_close(database_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Statement prepare(std::string_view sql) const { return {database_, path_, sql}; }
  void execute(std::string_view sql) const { prepare(sql).run(); }
  std::int64_t number(std::string_view sql) const {
    Statement statement = prepare(sql);
    return statement.step() ? statement.number(0) : 0;
  }
  // What a failed write has left open would keep others out.
  void roll_back() const { sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr); }

  std::unique_ptr<Statement> insert;  // prepared once

 private:
  const std::filesystem::path& path_;
  sqlite3* database_ = nullptr;

 public:
  sqlite3* database() const { return database_; }
};

ResultsStore::ResultsStore(const std::filesystem::path& path, Access access) : path_(path) {
  connection_ = std::make_unique<Connection>(path_, access);
  const std::int64_t found = connection_->number("PRAGMA application_id");
  const bool empty = connection_->number("SELECT count(*) FROM sqlite_master") == 0;
  if (found != application && !empty)
    throw ScenarioError({path.string(), 0, 0}, "expected a results store, found another database of SQLite");
  if (connection_->number("PRAGMA user_version") > schema)
    throw ScenarioError({path.string(), 0, 0}, "a newer version of Trainyard has made this store");
  connection_->execute("PRAGMA journal_mode = WAL");
  connection_->execute("PRAGMA synchronous = FULL");  // committed is on the disk
  prepare_tables();
}

ResultsStore::~ResultsStore() {
  if (connection_) connection_->insert.reset();
}

void ResultsStore::prepare_tables() {
  begin();
  connection_->execute(
      "CREATE TABLE IF NOT EXISTS points (sweep TEXT NOT NULL, position INTEGER NOT NULL, parameters TEXT NOT NULL, "
      "hash TEXT NOT NULL, program TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('ok', 'failed')), "
      "diagnostics TEXT, scenario_yaml TEXT NOT NULL, result_json TEXT, PRIMARY KEY (sweep, parameters))");
  std::set<std::string> existing;
  {
    Statement columns = connection_->prepare("PRAGMA table_info(points)");
    while (columns.step()) existing.insert(columns.text(1));
  }
  const auto add = [&](const std::string& name, std::string_view type) {
    if (!existing.contains(name))
      connection_->execute("ALTER TABLE points ADD COLUMN " + identifier(name) + " " + std::string{type});
  };
  for (const ResultField& field : result_fields()) add(field.path, field.sql_type);
  for (const std::string_view name : {"scaling_efficiency", "scaling_loss"}) add(std::string{name}, "REAL");
  connection_->execute("PRAGMA application_id = " + std::to_string(application));
  connection_->execute("PRAGMA user_version = " + std::to_string(schema));
  commit();
}

void ResultsStore::begin() {
  if (in_transaction_) return;
  connection_->execute("BEGIN IMMEDIATE");
  in_transaction_ = true;
}

void ResultsStore::commit() {
  if (!in_transaction_) return;
  in_transaction_ = false;
  try {
    connection_->execute("COMMIT");
  } catch (...) {
    connection_->roll_back();
    throw;
  }
}

std::map<std::string, ResultsStore::State> ResultsStore::states(const std::string& sweep) const {
  std::map<std::string, State> states;
  Statement rows = connection_->prepare("SELECT parameters, hash, status FROM points WHERE sweep = ?");
  rows.bind(1, sweep);
  while (rows.step()) states[rows.text(0)] = {.hash = rows.text(1), .ok = rows.text(2) == "ok"};
  return states;
}

namespace {

std::string insert_statement() {
  std::string names;
  std::string places;
  const auto add = [&](std::string_view name) {
    names += (names.empty() ? "" : ", ") + identifier(name);
    places += places.empty() ? "?" : ", ?";
  };
  for (const std::string_view name : own_columns) add(name);
  for (const ResultField& field : result_fields()) add(field.path);
  return "INSERT OR REPLACE INTO points (" + names + ") VALUES (" + places + ")";
}

void bind_field(Statement& statement, int place, const nlohmann::json& value) {
  if (value.is_boolean()) return statement.bind(place, std::int64_t{value.get<bool>() ? 1 : 0});
  if (value.is_number_integer()) return statement.bind(place, value.get<std::int64_t>());
  if (value.is_number()) return statement.bind(place, value.get<double>());
  if (value.is_string()) return statement.bind(place, value.get_ref<const std::string&>());
  statement.bind_nothing(place);
}

}  // namespace

void ResultsStore::put(const std::string& sweep, const StoredPoint& point) {
  begin();
  try {
    if (!connection_->insert)
      connection_->insert = std::make_unique<Statement>(connection_->database(), path_, insert_statement());
    Statement& insert = *connection_->insert;
    const std::string_view status = point.ok() ? "ok" : "failed";
    int place = 0;
    for (const std::string_view text : {std::string_view{sweep}}) insert.bind(++place, text);
    insert.bind(++place, static_cast<std::int64_t>(point.position));
    for (const std::string_view text :
         {std::string_view{point.parameters}, std::string_view{point.hash}, std::string_view{point.program}, status})
      insert.bind(++place, text);
    point.ok() ? insert.bind_nothing(++place) : insert.bind(++place, point.diagnostics);
    insert.bind(++place, point.scenario_yaml);
    point.ok() ? insert.bind(++place, point.result_json) : insert.bind_nothing(++place);
    const nlohmann::json result = point.ok() ? nlohmann::json::parse(point.result_json) : nlohmann::json::object();
    for (const ResultField& field : result_fields()) {
      const nlohmann::json::json_pointer pointer(field.pointer);
      bind_field(insert, ++place, result.contains(pointer) ? result.at(pointer) : nlohmann::json{});
    }
    insert.run();
  } catch (...) {
    connection_->insert.reset();
    connection_->roll_back();
    in_transaction_ = false;
    throw;
  }
}

void ResultsStore::put_scaling(const std::string& sweep, const std::vector<StoredScaling>& scaling) {
  begin();
  Statement clear =
      connection_->prepare("UPDATE points SET scaling_efficiency = NULL, scaling_loss = NULL WHERE sweep = ?");
  clear.bind(1, sweep);
  clear.run();
  Statement update = connection_->prepare(
      "UPDATE points SET scaling_efficiency = ?, scaling_loss = ? WHERE sweep = ? AND parameters = ?");
  for (const StoredScaling& point : scaling) {
    update.bind(1, point.efficiency);
    update.bind(2, point.loss);
    update.bind(3, sweep);
    update.bind(4, point.parameters);
    update.run();
  }
  commit();
}

std::optional<StoredPoint> ResultsStore::find(const std::string& sweep, const std::string& parameters) const {
  Statement row = connection_->prepare(
      "SELECT position, parameters, hash, program, diagnostics, scenario_yaml, result_json FROM points "
      "WHERE sweep = ? AND parameters = ?");
  row.bind(1, sweep);
  row.bind(2, parameters);
  if (!row.step()) return std::nullopt;
  return StoredPoint{.position = static_cast<std::size_t>(row.number(0)),
                     .parameters = row.text(1),
                     .hash = row.text(2),
                     .program = row.text(3),
                     .diagnostics = row.text(4),
                     .scenario_yaml = row.text(5),
                     .result_json = row.text(6)};
}

}  // namespace trainyard::scenarios
