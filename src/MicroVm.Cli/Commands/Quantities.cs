using System.Globalization;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Commands;

/// <summary>Quantities as people write them.</summary>
internal static class Quantities
{
    private const string Units = "kmgtp";
    private const int UnitShift = 10;
    private static readonly System.Buffers.SearchValues<char> NumberCharacters = System.Buffers.SearchValues.Create("0123456789.");

    /// <summary>Bytes with an optional unit, "512", "64m", "1.5GiB"; -1 is unlimited.</summary>
    /// <exception cref="SandboxException">It is something else. <paramref name="name"/> is the flag.</exception>
    internal static long Bytes(string text, string name)
    {
        if (text == "-1")
        {
            return -1;
        }

        string lower = text.ToLowerInvariant();
        int digits = lower.AsSpan().IndexOfAnyExcept(NumberCharacters);
        string number = digits < 0 ? lower : lower[..digits], unit = digits < 0 ? "" : lower[digits..].Trim();
        unit = unit.EndsWith("ib", StringComparison.Ordinal) ? unit[..^2] : unit.EndsWith('b') ? unit[..^1] : unit;
        int index = unit.Length == 1 ? Units.IndexOf(unit[0], StringComparison.Ordinal) : -1;
        bool known = unit.Length == 0 || index >= 0;
        return known && double.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value)
            && value * Math.Pow(1L << UnitShift, index + 1) is < long.MaxValue and var bytes
            ? (long)bytes
            : throw new SandboxException($"invalid value for {name}: invalid size: '{text}'");
    }

    /// <summary>A whole number, below zero where a type allows it.</summary>
    /// <exception cref="SandboxException">It is something else. <paramref name="name"/> is the flag.</exception>
    internal static T Number<T>(string text, string name)
        where T : struct, System.Numerics.IBinaryInteger<T>, System.Numerics.IMinMaxValue<T>
    {
        string parser = T.MinValue < T.Zero ? "ParseInt" : "ParseUint";
        return T.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out T value)
            ? value
            : throw new SandboxException($"invalid value for {name}: strconv.{parser}: parsing \"{text}\": invalid syntax");
    }

    /// <summary>A duration in Go's form: "5s", "1m30s", "-250ms", "0".</summary>
    internal static bool TryDuration(string text, out TimeSpan duration)
    {
        duration = TimeSpan.Zero;
        int sign = text.StartsWith('-') ? -1 : 1;
        string rest = text.Length > 0 && text[0] is '-' or '+' ? text[1..] : text;
        if (rest == "0")
        {
            return true;
        }

        double milliseconds = 0;
        int at = 0;
        while (at < rest.Length)
        {
            int unit = rest.AsSpan(at).IndexOfAnyExcept(NumberCharacters);
            unit = unit < 0 ? rest.Length : at + unit;
            int next = rest.AsSpan(unit).IndexOfAny(NumberCharacters);
            next = next < 0 ? rest.Length : unit + next;
            double factor = rest[unit..next] switch { "h" => 3_600_000, "m" => 60_000, "s" => 1000, "ms" => 1, "us" or "µs" => 1e-3, "ns" => 1e-6, _ => -1 };
            if (factor < 0 || !double.TryParse(rest.AsSpan(at, unit - at), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value))
            {
                return false;
            }

            milliseconds += value * factor;
            at = next;
        }

        if (rest.Length == 0 || milliseconds >= int.MaxValue)
        {
            return false;
        }

        duration = TimeSpan.FromMilliseconds(sign * milliseconds);
        return true;
    }
}
