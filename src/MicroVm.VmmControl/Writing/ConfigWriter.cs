using MicroVm.Json;

namespace MicroVm.VmmControl.Writing;

/// <summary>Writes the configuration and requests.</summary>
public static class ConfigWriter
{
    /// <summary>The document of <see cref="VmmConfig"/>.</summary>
    public static byte[] Write(VmmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return JsonRecords.Write(config);
    }

    /// <summary>The document of <see cref="ControlRequest"/>, without a newline.</summary>
    public static byte[] Write(ControlRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return JsonRecords.Write(request);
    }
}
