using System.Text;
using System.Text.Json;
using MicroVm.Json;
using MicroVm.Tests.Shared;
using MicroVm.VmmControl.Reading;
using Xunit;

namespace MicroVm.VmmControl.Tests;

/// <summary>Configurations and requests are read by tables of members as the serializer would read them.</summary>
public sealed class ConfigDocumentTests
{
    [Fact]
    public void Every_member_is_read()
    {
        string config = JsonSerializer.Serialize(new Filler().Fill<VmmConfig>(), VmmJson.Default.VmmConfig);
        Assert.Equal(config, JsonSerializer.Serialize(ConfigDocument.Config.TryRead(Encoding.UTF8.GetBytes(config))!, VmmJson.Default.VmmConfig));
        string request = JsonSerializer.Serialize(new Filler().Fill<ControlRequest>(), VmmJson.Default.ControlRequest);
        Assert.Equal(request, JsonSerializer.Serialize(ConfigDocument.Request.TryRead(Encoding.UTF8.GetBytes(request))!, VmmJson.Default.ControlRequest));
    }

    [Fact]
    public void Names_of_enumerations_are_read()
    {
        Assert.All(Enum.GetNames<ControlOperation>(), n => Assert.Equal(n, ConfigDocument.Request.TryRead(Encoding.UTF8.GetBytes($$"""{"operation":"{{n}}"}"""))!.Operation.ToString()));
        Assert.All(Enum.GetNames<FsCache>(), n => Assert.Equal(n, ConfigDocument.Request.TryRead(Encoding.UTF8.GetBytes($$"""{"operation":"AddExport","cache":"{{n}}"}"""))!.Cache.ToString()));
        Assert.All(Enum.GetNames<MachineTables>(), n => Assert.Equal(n, ConfigDocument.Config.TryRead(Encoding.UTF8.GetBytes($$"""{"kernel":{},"tables":"{{n}}"}"""))!.Tables.ToString()));
    }

    [Theory]
    [InlineData("""{"kernel":{"path":"/k"}}""")]
    [InlineData(""" { "kernel" : { "path" : "/k" } , "console" : null , "vcpus" : 2, "vcpus" : 3 } """)]
    [InlineData("""{"k\u0065rnel":{"fd":3,"path":null},"net":[{},{"interface":null}],"fs":[]}""")]
    public void Members_that_are_left_out_have_their_defaults(string json) => Assert.Equal(
        JsonSerializer.Serialize(JsonSerializer.Deserialize(json, VmmJson.Default.VmmConfig)!, VmmJson.Default.VmmConfig),
        JsonSerializer.Serialize(ConfigDocument.Config.TryRead(Encoding.UTF8.GetBytes(json))!, VmmJson.Default.VmmConfig));

    [Theory]
    [InlineData("""{"kernel":{"path":"/k"},"memoryMB":64}""")]
    [InlineData("""{"kernel":{"path":"/k","mode":1}}""")]
    [InlineData("""{"kernel":{"path":7}}""")]
    [InlineData("""{"kernel":{"path":"/k"},"memoryMiB":"many"}""")]
    [InlineData("""{"kernel":{"path":"/k"},"tables":"Dsdt"}""")]
    [InlineData("""{"kernel":{"path":"/k"},"tables":1}""")]
    [InlineData("""{"kernel":{"path":"/k"},"vsock":{"cid":3}}""")]
    [InlineData("""{"kernel":{"path":"/k"},"vsock":{"cid":-1,"socketPath":"/s"}}""")]
    [InlineData("""{"kernel":{"path":"/k"},"block":[{"readOnly":true}]}""")]
    [InlineData("""{"kernel":{"path":"/k"},"fs":[{"tag":"t","exports":[{"name":"x"}]}]}""")]
    [InlineData("""{"kernel":{"path":"/k"},"net":[{"interface":{"mtu":1500}}]}""")]
    [InlineData("""{"kernel":{"path":"/k"}""")]
    [InlineData("[]")]
    [InlineData("")]
    public void Malformed_configurations_are_refused(string json)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(json);
        Assert.Null(ConfigDocument.Config.TryRead(bytes));
        Assert.ThrowsAny<JsonException>(() => ConfigDocument.Config.Read(bytes));
    }

    [Theory]
    [InlineData("""{"kernel":{"path":"/k"},"pmem":null}""")]
    [InlineData("""{"kernel":{"path":"/k"},"net":[null]}""")]
    [InlineData("""{"kernel":{"path":"/k"},"commandLine":null}""")]
    [InlineData("""{"kernel":null}""")]
    public void Nulls_in_place_of_lists_and_texts_are_refused(string json) =>
        Assert.Null(ConfigDocument.Config.TryRead(Encoding.UTF8.GetBytes(json)));

    [Theory]
    [InlineData("""{"operation":3}""")]
    [InlineData("""{"operation":"Stop, Pause"}""")]
    [InlineData("""{"operation":"stop"}""")]
    [InlineData("""{"index":1}""")]
    [InlineData("""{"operation":"Info","what":1}""")]
    [InlineData("""{"operation":"AttachNet","interface":{"mac":"m","taps":7}}""")]
    public void Requests_that_are_none_are_refused(string json)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(json);
        Assert.Null(ConfigDocument.Request.TryRead(bytes));
        Assert.ThrowsAny<JsonException>(() => ConfigDocument.Request.Read(bytes));
    }
}
