using MicroVm.Json;

namespace MicroVm.VmmControl.Reading;

/// <summary>The kinds of documents that a VMM reads.</summary>
public static class ConfigDocument
{
    /// <summary>The configuration.</summary>
    public static TableDocument<VmmConfig> Config => new(passOthers: false, static () => new VmmConfig());

    /// <summary>A request on the control socket.</summary>
    public static TableDocument<ControlRequest> Request => new(passOthers: false, static () => new ControlRequest { Operation = ControlRequest.NoOperation });
}
