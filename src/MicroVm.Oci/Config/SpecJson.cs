using System.Text.Json;
using System.Text.Json.Serialization;

namespace MicroVm.Oci.Config;

/// <summary>Source-generated JSON of the specification. Members that it does not know are ignored, as the specification asks.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    WriteIndented = true,
    IndentCharacter = '\t',
    IndentSize = 1,
    NewLine = "\n")]
[JsonSerializable(typeof(Spec))]
[JsonSerializable(typeof(Process))]
[JsonSerializable(typeof(Resources))]
public sealed partial class SpecJson : JsonSerializerContext;
