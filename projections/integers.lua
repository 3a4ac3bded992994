-- What the scripts have in common: integers as text, because Lua's numbers are doubles and would take
-- neighbours beyond 2^53 for the same. Money never becomes a number, but for seven of its digits at a time.
-- No variables are exchanged (a, b = b, a): the embedded Redis's Lua makes both the same.

-- above says whether a is more than b, both being without sign and leading zeros: the longer is.
local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

-- integer says whether s is one, without sign and leading zeros, of at most so much.
local function integer(s, most)
  return (s == '0' or string.find(s, '^[1-9][0-9]*$') ~= nil) and not above(s, most)
end

-- signed is integer with a sign; -0 is none.
local function signed(s, most)
  local sign, digits = string.match(s, '^(%-?)([0-9]+)$')
  return digits ~= nil and integer(digits, most) and not (sign == '-' and digits == '0')
end

-- sum is a + b, or with a sign of -1 a - b, which must not be below 0; all are without sign and leading
-- zeros.
local function sum(a, b, sign)
  local width = 7 * math.ceil((math.max(#a, #b) + 1) / 7)
  a = string.rep('0', width - #a) .. a
  b = string.rep('0', width - #b) .. b
  local out, carry = '', 0
  for at = width - 6, 1, -7 do
    local part = tonumber(string.sub(a, at, at + 6)) + sign * tonumber(string.sub(b, at, at + 6)) + carry
    carry = math.floor(part / 10000000)
    out = string.format('%07d', part - carry * 10000000) .. out
  end
  return string.match(out, '^0*([0-9]+)$')
end

-- balance reads the hash that an account's balance is kept in. What is there and is no balance is nothing,
-- as it is for whoever reads it in Go; the second value says that it is not even a hash. What does not fit
-- 64 bits would never be overtaken, so it is no balance either.
local function balance(key)
  local had = redis.pcall('HMGET', key, 'epoch', 'seq', 'spendable', 'frozen', 'available', 'reserved')
  if had.err then return nil, true end
  for i = 1, 6 do
    if not had[i] then return nil, false end
  end
  local count, exact = '9223372036854775807', string.rep('9', 38)
  if integer(had[1], count) and integer(had[2], count) and signed(had[3], string.rep('9', 36))
    and (had[4] == '0' or had[4] == '1') and signed(had[5], exact) and signed(had[6], exact) then
    return {epoch = had[1], seq = had[2], spendable = had[3], frozen = had[4] == '1'}, false
  end
  return nil, false
end

