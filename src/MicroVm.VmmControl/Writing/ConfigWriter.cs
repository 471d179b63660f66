using MicroVm.Json;

namespace MicroVm.VmmControl.Writing;

/// <summary>
/// Writes the configuration and requests as the serializer would, without setting it up, which takes longer than all else that a
/// short-lived process does with them.
/// </summary>
public static class ConfigWriter
{
    /// <summary>The document of <see cref="VmmConfig"/>.</summary>
    public static byte[] Write(VmmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return WriterExtensions.Document(config, JsonMembers.Write);
    }

    /// <summary>The document of <see cref="ControlRequest"/>, without a newline.</summary>
    public static byte[] Write(ControlRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return WriterExtensions.Document(request, JsonMembers.Write);
    }
}
