-- Limits of model calls: the arithmetic of domain/gcra.go, where it is explained. All numbers stay below 2^53,
-- the bound of what a double holds exactly, because a limit has a bound and quantities are cut.
--
-- KEYS are the hashes of those whose limits are asked for: one, or an account's and its API key's. Each has a
-- field for each limit, `used at`. ARGV[1] is what is wanted, ARGV[2] a hash's life in milliseconds; then
-- come, for each limit, the number of its key, its field, most, period and quantity.
--
-- `take` takes all the quantities or none of them; `adjust` puts them in whether or not they fit, or takes
-- them out. The answer is 1 or 0 (it did not fit), and what each bucket holds now, in their order.

local wanted, life, width = ARGV[1], ARGV[2], 5
local time = redis.call('TIME') -- one clock for all gateways
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- drained reads a bucket and brings it to now: what it holds, as of when, and whether it was there. What
-- cannot be read is an empty one.
local function drained(b)
  local had = redis.pcall('HGET', b.key, b.field)
  if type(had) == 'table' and had.err then
    redis.call('DEL', b.key)
    had = false
  end
  local used, at = string.match(had or '', '^(%d+) (%d+)$')
  if not used or #used > 16 or #at > 16 then return 0, now, false end
  used = math.min(tonumber(used), 2 * b.most * b.period)
  at = tonumber(at)
  local gone = now - at
  if used == 0 or gone >= 2 * b.period then return 0, now, true end
  if gone < -2 * b.period then return used, now, true end
  if gone < 0 then return used, at, true end
  return math.max(used - gone * b.most, 0), now, true
end

local buckets, fits = {}, true
for i = 3, #ARGV, width do
  local b = {key = KEYS[tonumber(ARGV[i])], field = ARGV[i + 1], most = tonumber(ARGV[i + 2]),
    period = tonumber(ARGV[i + 3]), quantity = tonumber(ARGV[i + 4])}
  b.used, b.at, b.there = drained(b)
  if wanted == 'take' and (b.quantity > b.most or b.used > (b.most - b.quantity) * b.period) then fits = false end
  buckets[#buckets + 1] = b
end

local answer = {fits and 1 or 0}
for _, b in ipairs(buckets) do
  if fits then b.used = math.min(math.max(b.used + b.quantity * b.period, 0), 2 * b.most * b.period) end
  if b.there or b.used > 0 then
    redis.call('HSET', b.key, b.field, string.format('%.0f %.0f', b.used, b.at))
  end
  answer[#answer + 1] = string.format('%.0f', b.used)
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, life) end
return answer
