-- Sends the requests of FILE, whole ones, in order and again and again: each is behind its size, 4 bytes, highest first.
dofile("loadtests/bench/loads/lua/report.lua")

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local data = file:read("*a")
  file:close()
  calls, count, sent = {}, 0, 0
  local at = 1
  while at <= #data do
    local a, b, c, d = data:byte(at, at + 3)
    local size = ((a * 256 + b) * 256 + c) * 256 + d
    calls[count] = data:sub(at + 4, at + 3 + size)
    count = count + 1
    at = at + 4 + size
  end
  began = os.clock()
end

function request()
  local call = calls[sent % count]
  sent = sent + 1
  return call
end

function done(summary, latency, requests)
  report(summary, latency, threads)
end
