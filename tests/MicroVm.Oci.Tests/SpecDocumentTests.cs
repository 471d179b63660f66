using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MicroVm.Json;
using MicroVm.Oci.Config;
using MicroVm.Tests.Shared;

namespace MicroVm.Oci.Tests;

/// <summary>Documents are read by tables of members as the serializer would read them.</summary>
public sealed class SpecDocumentTests
{
    [Fact]
    public void EveryMemberOfTheModelIsRead()
    {
        ReadsWhatIsWritten(SpecDocument.Config, SpecJson.Default.Spec);
        ReadsWhatIsWritten(SpecDocument.Process, SpecJson.Default.Process);
        ReadsWhatIsWritten(SpecDocument.Resources, SpecJson.Default.Resources);
    }

    [Theory]
    [InlineData("""{"process":{"args":["a",null,"\u00e4\"\\"],"user":null,"terminal":true,"terminal":false},"process2":{"args":[1]},"annotations":{"b":"1","a":"2","b":"3"}}""")]
    [InlineData("""{"process":{"args":["a"],"cwd":"/"},"process":{"env":[]},"linux":{"devices":[],"resources":{},"namespaces":[null,{}]}}""")]
    [InlineData("""{"linux":{"intelRdt":{"a":[1,{}]},"memoryPolicy":null,"netDevices":{"eth0":{},"x":null},"sysctl":{"a":null},"resources":{"memory":{"limit":-9223372036854775808,"swappiness":18446744073709551615}}}}""")]
    [InlineData("""{"\u0072oot":{"p\u0061th":"x"},"Root":{"path":"y"},"":1,"hooks":{"poststop":[{"timeout":-2147483648}]}}""")]
    [InlineData(" \t\r\n{ } \n")]
    public void UnusualDocumentsAreReadAsTheSerializerReadsThem(string json)
    {
        Spec? read = SpecDocument.Config.TryRead(Encoding.UTF8.GetBytes(json));
        Assert.NotNull(read);
        Assert.Equal(Written(JsonSerializer.Deserialize(json, SpecJson.Default.Spec)!, SpecJson.Default.Spec), Written(read, SpecJson.Default.Spec));
    }

    [Theory]
    [InlineData("""{"root":{"path":7}}""")]
    [InlineData("""{"root":[]}""")]
    [InlineData("""{"mounts":{}}""")]
    [InlineData("""{"mounts":["x"]}""")]
    [InlineData("""{"process":{"terminal":"true"}}""")]
    [InlineData("""{"process":{"oomScoreAdj":2147483648}}""")]
    [InlineData("""{"process":{"user":{"uid":1e3}}}""")]
    [InlineData("""{"process":{"user":{"additionalGids":[null]}}}""")]
    [InlineData("""{"linux":{"resources":{"blockIO":{"weight":65536}}}}""")]
    [InlineData("""{"annotations":{"a":1}}""")]
    [InlineData("""{"annotations":["a"]}""")]
    [InlineData("""{} {}""")]
    [InlineData("""{"root":{}""")]
    [InlineData("""{"ociVersion":"1.0.2" """)]
    [InlineData("""{"root":{"path":"rootfs"x""")]
    [InlineData("[]")]
    [InlineData("")]
    public void MalformedDocumentsAreRefusedWhereTheSerializerRefusesThem(string json)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(json);
        Assert.Null(SpecDocument.Config.TryRead(bytes));
        JsonException ours = Assert.ThrowsAny<JsonException>(() => SpecDocument.Config.Read(bytes));
        JsonException theirs = Assert.Throws<JsonException>(() => JsonSerializer.Deserialize(bytes, SpecJson.Default.Spec));
        Assert.Equal((theirs.Path, theirs.LineNumber, theirs.BytePositionInLine), (ours.Path, ours.LineNumber, ours.BytePositionInLine));
    }

    [Fact]
    public void AProcessIsWrittenAsTheSerializerWritesIt()
    {
        foreach (Process process in (Process[])[new Filler().Fill<Process>(), new(), new() { User = new(), Capabilities = new(), Rlimits = [null!], Args = [] }])
        {
            System.Buffers.ArrayBufferWriter<byte> buffer = new();
            using (Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Indented = true, IndentCharacter = '\t', IndentSize = 1, NewLine = "\n" }))
            {
                JsonMembers.Write(writer, process);
            }

            Assert.Equal(Written(process, SpecJson.Default.Process), Encoding.UTF8.GetString(buffer.WrittenSpan));
        }
    }

    private static string Written<T>(T value, JsonTypeInfo<T> type) => JsonSerializer.Serialize(value, type);

    private static void ReadsWhatIsWritten<T>(TableDocument<T> document, JsonTypeInfo<T> type)
        where T : class, IJsonRecord, new()
    {
        string json = Written(new Filler().Fill<T>(), type);
        T? read = document.TryRead(Encoding.UTF8.GetBytes(json));
        Assert.NotNull(read);
        Assert.Equal(json, Written(read, type));
    }
}
