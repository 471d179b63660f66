using System.Globalization;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Network;

/// <summary>The rate limits that a bundle's annotations ask for.</summary>
/// <param name="Receive">Of what the container receives.</param>
/// <param name="Transmit">Of what it sends.</param>
internal sealed record NetworkLimits(RateLimit? Receive, RateLimit? Transmit)
{
    private const string Prefix = "dev.microvm.network.";

    /// <summary>
    /// Reads <c>dev.microvm.network.{receive,transmit}.{bytes,packets}-per-second</c> and <c>...burst-{bytes,packets}</c>.
    /// </summary>
    /// <exception cref="SandboxException">A value is no number of at least 1.</exception>
    internal static NetworkLimits FromAnnotations(IReadOnlyDictionary<string, string>? annotations) =>
        new(Read(annotations, "receive."), Read(annotations, "transmit."));

    private static RateLimit? Read(IReadOnlyDictionary<string, string>? annotations, string direction)
    {
        RateLimit limit = new()
        {
            BytesPerSecond = Number("bytes-per-second"),
            BurstBytes = Number("burst-bytes"),
            PacketsPerSecond = Number("packets-per-second"),
            BurstPackets = Number("burst-packets"),
        };
        return limit.BytesPerSecond > 0 || limit.PacketsPerSecond > 0 ? limit : null;

        long Number(string name)
        {
            string key = Prefix + direction + name;
            return annotations is null || !annotations.TryGetValue(key, out string? text) ? 0
                : long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long value) && value > 0 ? value
                : throw new SandboxException($"annotation {key}: \"{text}\" is not a number of at least 1");
        }
    }
}
