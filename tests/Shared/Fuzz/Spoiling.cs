using System.Buffers.Binary;
using System.Text;
using System.Text.Json.Nodes;

namespace MicroVm.Tests.Shared.Fuzz;

/// <summary>Makes bad input out of good: what is left of it gets it past the first checks.</summary>
internal static class Spoiling
{
    // No JsonNode can hold half a character.
    private const string Surrogate = "half-a-character";

    private static readonly string[] Values =
    [
        "null", "true", "-1", "0", "1", "4294967296", "18446744073709551615", "-9223372036854775808", "1e400", "0.5", "\"\"", "\"..\"", "\"/\"", "\"a\\u0000b\"",
        "\"" + Surrogate + "\"", "\"-1\"", "\"0-99999999\"", "\"max\"", "\"SCMP_ACT_NOTIFY\"", "[]", "{}", "[[[[]]]]", "[null]", "[-1,1]", "{\"a\":{\"b\":[]}}", "\"\\n=\"",
    ];

    /// <summary>A copy with bytes changed, cut off, doubled or moved.</summary>
    /// <param name="input">What is good.</param>
    /// <param name="random">Decides.</param>
    /// <param name="first">Changes are within this many first bytes.</param>
    public static byte[] Bytes(byte[] input, Random random, int first = int.MaxValue)
    {
        List<byte> bytes = [.. input];
        for (int n = random.Next(1, 6); n > 0 && bytes.Count > 0; n--)
        {
            int at = random.Next(Math.Min(bytes.Count, first));
            int length = Math.Min(1 << random.Next(4), bytes.Count - at);
            switch (random.Next(8))
            {
                case 0 when random.Next(4) == 0:
                    bytes.RemoveRange(at, bytes.Count - at);
                    break;
                case 1:
                    bytes.RemoveRange(at, length);
                    break;
                case 2:
                    bytes.InsertRange(random.Next(bytes.Count + 1), bytes.GetRange(at, length));
                    break;
                case 3:
                    bytes[at] ^= (byte)(1 << random.Next(8));
                    break;
                default:
                    byte[] number = new byte[8];
                    BinaryPrimitives.WriteInt64LittleEndian(number, random.Next(4) switch { 0 => -1, 1 => 0, 2 => random.Next(300), _ => random.NextInt64(long.MinValue, long.MaxValue) });
                    for (int i = 0; i < length; i++)
                    {
                        bytes[at + i] = number[i];
                    }

                    break;
            }
        }

        return [.. bytes];
    }

    /// <summary>A JSON text with members of other types and values, without some, or, now and then, no JSON any more.</summary>
    public static byte[] Json(string input, Random random)
    {
        JsonNode root = JsonNode.Parse(input)!;
        for (int n = random.Next(1, 5); n > 0; n--)
        {
            Change(root, random);
        }

        byte[] text = Encoding.UTF8.GetBytes(root.ToJsonString().Replace(Surrogate, "\\ud800", StringComparison.Ordinal));
        return random.Next(8) == 0 ? Bytes(text, random) : text;
    }

    private static void Change(JsonNode node, Random random)
    {
        while (true)
        {
            if (node is JsonObject { Count: > 0 } members)
            {
                string name = members.ElementAt(random.Next(members.Count)).Key;
                if (members[name] is JsonObject or JsonArray && random.Next(4) != 0)
                {
                    node = members[name]!;
                    continue;
                }

                if (random.Next(6) == 0)
                {
                    members.Remove(name);
                }
                else
                {
                    members[random.Next(12) == 0 ? "surplus" : name] = Value(members[name], random);
                }
            }
            else if (node is JsonArray { Count: > 0 } items)
            {
                int at = random.Next(items.Count);
                if (items[at] is JsonObject or JsonArray && random.Next(4) != 0)
                {
                    node = items[at]!;
                    continue;
                }

                if (random.Next(6) == 0)
                {
                    items.RemoveAt(at);
                }
                else if (random.Next(4) == 0)
                {
                    items.Add(items[at]?.DeepClone());
                }
                else
                {
                    items[at] = Value(items[at], random);
                }
            }

            return;
        }
    }

    private static JsonNode? Value(JsonNode? old, Random random)
    {
        if (old is JsonValue value && value.TryGetValue(out string? text) && text.Length > 0 && random.Next(3) == 0)
        {
            char[] characters = text.ToCharArray();
            characters[random.Next(characters.Length)] = (char)random.Next(' ', '\u007f');
            return JsonValue.Create(new string(characters) + (random.Next(8) == 0 ? new string('x', random.Next(5000)) : ""));
        }

        try
        {
            return JsonNode.Parse(Values[random.Next(Values.Length)]);
        }
        catch (System.Text.Json.JsonException)
        {
            return null;
        }
    }
}
