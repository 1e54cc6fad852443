-- Sends one request again and again: PATH, FILE with the body, and header fields as NAME and VALUE.
dofile("loadtests/bench/loads/lua/report.lua")

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[2], "rb"))
  local body = file:read("*a")
  file:close()
  local headers = {}
  for i = 3, #args, 2 do
    headers[args[i]] = args[i + 1]
  end
  call = wrk.format("POST", args[1], headers, body)
  began = os.clock()
end

function request()
  return call
end

function done(summary, latency, requests)
  report(summary, latency, threads)
end
