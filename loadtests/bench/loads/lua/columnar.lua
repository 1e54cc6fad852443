-- Steps many sessions in one call: PATH, NAME PREFIX, ROWS, one ROW of input. A thread is a caller with sessions of its
-- own and one body for all its calls.
dofile("loadtests/bench/loads/lua/report.lua")

local threads = {}

function setup(thread)
  thread:set("caller", #threads)
  table.insert(threads, thread)
end

function init(args)
  local path, prefix, rows, row = args[1], args[2], tonumber(args[3]), args[4]
  local sessions, inputs = {}, {}
  for i = 1, rows do
    sessions[i] = string.format('"%s%d"', prefix, caller * rows + i - 1)
    inputs[i] = row
  end
  local body = string.format(
    '{"sessions":[%s],"inputs":[%s]}', table.concat(sessions, ","), table.concat(inputs, ",")
  )
  call = wrk.format("POST", path, { ["content-type"] = "application/json" }, body)
  began = os.clock()
end

function request()
  return call
end

function done(summary, latency, requests)
  report(summary, latency, threads)
end
