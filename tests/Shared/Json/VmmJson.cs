using System.Text.Json.Serialization;

namespace MicroVm.VmmControl;

/// <summary>The VMM's configuration and control messages by the library's serializer: what the rows of their types are compared with.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    Converters = [typeof(NamedEnumConverter<ControlOperation>), typeof(NamedEnumConverter<MachineTables>), typeof(NamedEnumConverter<FsCache>)])]
[JsonSerializable(typeof(VmmConfig))]
[JsonSerializable(typeof(ControlRequest))]
[JsonSerializable(typeof(ControlResponse))]
internal sealed partial class VmmJson : JsonSerializerContext;
