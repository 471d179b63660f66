using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.VmmControl.Reading;

/// <summary>
/// Reads the configuration and requests by tables of their members: to set the serializer up for them takes a VMM longer than most of
/// what it does before its guest runs. What they find wrong is left to the serializer, which can say where it is.
/// </summary>
public static class ConfigDocument
{
    /// <summary>Reads a configuration; null for null.</summary>
    /// <exception cref="JsonException">It is malformed, or no configuration.</exception>
    public static VmmConfig? ReadConfig(ReadOnlySpan<byte> json) => TryReadConfig(json) ?? JsonSerializer.Deserialize(json, VmmJson.Default.VmmConfig);

    /// <summary>Reads a request; null for null.</summary>
    /// <exception cref="JsonException">It is malformed, or no request.</exception>
    public static ControlRequest? ReadRequest(ReadOnlySpan<byte> json) => TryReadRequest(json) ?? JsonSerializer.Deserialize(json, VmmJson.Default.ControlRequest);

    /// <summary>Reads a configuration by the tables alone; null when it is not as it should be.</summary>
    public static VmmConfig? TryReadConfig(ReadOnlySpan<byte> json) => Members.TryRead(json, ConfigMembers.Config);

    /// <summary>Reads a request by the tables alone; null when it is not as it should be.</summary>
    public static ControlRequest? TryReadRequest(ReadOnlySpan<byte> json) => Members.TryRead(json, ConfigMembers.Request);
}
