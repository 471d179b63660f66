using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MicroVm.Json;
using MicroVm.Tests.Shared;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.VmmControl.Reading;
using Xunit;

namespace MicroVm.VmmControl.Tests.Fuzz;

/// <summary>Spoiled configurations and requests: whatever the tables of members read, the serializer reads so, too.</summary>
public sealed class ReadingFuzz
{
    [Fact]
    public void Configurations() => ReadsAlike("vmm-config-reading", ConfigDocument.Config, VmmJson.Default.VmmConfig);

    [Fact]
    public void Requests() => ReadsAlike("vmm-request-reading", ConfigDocument.Request, VmmJson.Default.ControlRequest);

    private static void ReadsAlike<T>(string target, TableDocument<T> document, JsonTypeInfo<T> type)
        where T : class, IJsonRecord
    {
        string good = JsonSerializer.Serialize(new Filler().Fill<T>(), type);
        Fuzzing.Run(target, random =>
        {
            byte[] json = Spoiling.Json(good, random);
            if (document.TryRead(json) is { } read)
            {
                Assert.Equal(JsonSerializer.Serialize(JsonSerializer.Deserialize(json, type)!, type), JsonSerializer.Serialize(read, type));
            }
        });
    }
}
