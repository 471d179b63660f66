using System.Text.Json;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.VmmControl.Reading;
using Xunit;

namespace MicroVm.VmmControl.Tests.Fuzz;

/// <summary>Spoiled configurations and requests: whatever the tables of members read, the serializer reads so, too.</summary>
public sealed class ReadingFuzz
{
    [Fact]
    public void Configurations()
    {
        string good = JsonSerializer.Serialize(new Filler().Fill<VmmConfig>(), VmmJson.Default.VmmConfig);
        Fuzzing.Run("vmm-config-reading", random =>
        {
            byte[] json = Spoiling.Json(good, random);
            if (ConfigDocument.TryReadConfig(json) is { } read)
            {
                VmmConfig expected = JsonSerializer.Deserialize(json, VmmJson.Default.VmmConfig)!;
                Assert.Equal(JsonSerializer.Serialize(expected, VmmJson.Default.VmmConfig), JsonSerializer.Serialize(read, VmmJson.Default.VmmConfig));
            }
        });
    }

    [Fact]
    public void Requests()
    {
        string good = JsonSerializer.Serialize(new Filler().Fill<ControlRequest>(), VmmJson.Default.ControlRequest);
        Fuzzing.Run("vmm-request-reading", random =>
        {
            byte[] json = Spoiling.Json(good, random);
            if (ConfigDocument.TryReadRequest(json) is { } read)
            {
                ControlRequest expected = JsonSerializer.Deserialize(json, VmmJson.Default.ControlRequest)!;
                Assert.Equal(JsonSerializer.Serialize(expected, VmmJson.Default.ControlRequest), JsonSerializer.Serialize(read, VmmJson.Default.ControlRequest));
            }
        });
    }
}
