-- Steps sessions: NAME PREFIX, COUNT, BODY, one step of a session at a time. The session that was answered longest ago
-- is stepped next, so with as many connections as sessions each connection is one client.
dofile("loadtests/bench/loads/lua/report.lua")

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local prefix, count, body = args[1], tonumber(args[2]), args[3]
  requests, queue, head, size = {}, {}, 0, count
  local headers = { ["content-type"] = "application/json" }
  for i = 0, count - 1 do
    local id = prefix .. i
    requests[id] = wrk.format("POST", "/v1/sessions/" .. id .. ":step", headers, body)
    queue[i] = id
  end
  tail = count
  asked_before = false
  began = os.clock()
end

function request()
  if not asked_before then -- wrk asks once without sending
    asked_before = true
    return requests[queue[0]]
  end
  if head == tail then
    error("more connections than sessions")
  end
  local id = queue[head % size]
  head = head + 1
  return requests[id]
end

function response(status, headers, body)
  queue[tail % size] = headers["sluice-session"]
  tail = tail + 1
end

function done(summary, latency, requests)
  report(summary, latency, threads)
end
