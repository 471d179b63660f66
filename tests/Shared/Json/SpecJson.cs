using System.Text.Json;
using System.Text.Json.Serialization;

namespace MicroVm.Oci.Config;

/// <summary>The specification by the library's serializer: what the rows of its types are compared with.</summary>
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
internal sealed partial class SpecJson : JsonSerializerContext;
